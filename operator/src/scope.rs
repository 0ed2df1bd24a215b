//! Which namespaces this operator is for: all, or those that it is told. Pure.

use anyhow::ensure;
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

/// Namespaces whose ScriptRunners this operator looks after.
///
/// **Invariant:** whatever is in namespaces is listed and watched through [`Scope::apis`] only, so that nothing of another
/// namespace enters a table, and what is in no table is never written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope(Vec<String>);

impl Scope {
    /// The namespaces of a flag; none for all. The operator's `own` is not among them: nothing runs beside its key.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>, own: &str) -> anyhow::Result<Self> {
        let mut namespaces: Vec<String> = names.into_iter().map(ToOwned::to_owned).collect();
        for name in &namespaces {
            ensure!(is_label(name), "{name:?} is no name of a namespace");
            ensure!(name != own, "{name:?} is the operator's own namespace, in which no ScriptRunner may be");
        }
        namespaces.sort_unstable();
        namespaces.dedup();
        Ok(Self(namespaces))
    }

    /// What has to be asked to see all objects of a kind.
    pub fn apis<K>(&self, client: &Client) -> Vec<Api<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        if self.0.is_empty() {
            return vec![Api::all(client.clone())];
        }
        self.0.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.is_empty() { "all" } else { "" })?;
        formatter.write_str(&self.0.join(","))
    }
}

/// Whether it is a label of RFC 1123, as names of namespaces are.
fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_holds_each_namespace_once() {
        let scope = Scope::of(["b", "a", "b"], "own").unwrap();
        assert_eq!((scope.to_string().as_str(), Scope::default().to_string().as_str()), ("a,b", "all"));
        assert_eq!(Scope::of([], "own").unwrap(), Scope::default());
    }

    #[test]
    fn what_is_no_namespace_for_scripts_is_refused() {
        for wrong in ["", "A", "a.b", "-a", "a-", "a b", "*", "own", &"a".repeat(64)] {
            let error = Scope::of(["a", wrong], "own").unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }
}
