//! Which images the operator's flags allow. Pure.
//!
//! Names are compared as they are written, never completed: what a short name such as `python` stands for is each node's to say.

use std::fmt;

use scriptrunner_api::reason::ConditionReason;

use super::{Refusal, inputs::is_sha256};

/// Images that specs may name; none means every image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedImages(Vec<Allowed>);

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    /// Every repository below this, which ends in `/`.
    Below(String),
    /// One repository, or one image of it.
    Image(Name),
}

/// A name of an image, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why an entry means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEntry {
    /// It is empty, or has characters that no name of an image has.
    #[error("{0:?} is no name of an image and no prefix of one")]
    NoName(String),
    /// It has a wildcard.
    #[error("{0:?} has a wildcard; end a prefix with / instead")]
    Wildcard(String),
    /// It is a registry without anything in it.
    #[error("{0:?} names a registry and no repository; write {0}/ for all of it")]
    Registry(String),
    /// Its digest is none.
    #[error("{0:?} ends in no digest; write repository@sha256: and 64 lower-case hexadecimal digits")]
    Digest(String),
}

impl AllowedImages {
    /// Reads the list.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidEntry> {
        entries.into_iter().map(Allowed::of).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a spec may name this image.
    pub fn admits(&self, image: &str) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let name = Name::of(image);
        name.is_plain() && self.0.iter().any(|allowed| allowed.admits(&name))
    }

    /// Refuses an image that the list does not have. That of the runner is always allowed: every pod has it.
    pub(crate) fn check(&self, image: Option<&str>, runner_image: &str) -> Result<(), Refusal> {
        match image {
            Some(image) if image != runner_image && !self.admits(image) => Err(Refusal {
                reason: ConditionReason::ImageNotAllowed,
                message: format!(
                    "image {image:?} is not allowed in this cluster; remove the field for the operator's own, or use one of: {self}"
                ),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

impl fmt::Display for AllowedImages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, allowed) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            match allowed {
                Allowed::Below(prefix) => write!(formatter, "{separator}{prefix}*")?,
                Allowed::Image(Name { repository, tag, digest }) => {
                    write!(formatter, "{separator}{repository}")?;
                    tag.iter().try_for_each(|tag| write!(formatter, ":{tag}"))?;
                    digest.iter().try_for_each(|digest| write!(formatter, "@{digest}"))?;
                }
            }
        }
        Ok(())
    }
}

impl Allowed {
    fn of(entry: &str) -> Result<Self, InvalidEntry> {
        let refused = |why: fn(String) -> InvalidEntry| Err(why(entry.to_owned()));
        if entry.contains(['*', '?', '[']) {
            return refused(InvalidEntry::Wildcard);
        }
        let is_name = entry.starts_with(|first: char| first.is_ascii_alphanumeric())
            && entry.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(path) = entry.strip_suffix('/') {
            let is_prefix = is_name && path.split('/').all(is_component) && !path.contains('@');
            return if is_prefix { Ok(Self::Below(entry.to_owned())) } else { refused(InvalidEntry::NoName) };
        }
        let name = Name::of(entry);
        if !is_name || !name.is_plain() || name.tag.as_deref().is_some_and(str::is_empty) {
            return refused(InvalidEntry::NoName);
        }
        if !name.repository.contains('/') && name.repository.contains('.') {
            return refused(InvalidEntry::Registry);
        }
        match &name.digest {
            Some(digest) if !digest.strip_prefix("sha256:").is_some_and(is_sha256) => {
                refused(InvalidEntry::Digest)
            }
            Some(_) | None => Ok(Self::Image(name)),
        }
    }

    fn admits(&self, name: &Name) -> bool {
        match self {
            Self::Below(prefix) => name.repository.starts_with(prefix.as_str()),
            Self::Image(allowed) => {
                let is_chosen = match (&allowed.tag, &allowed.digest) {
                    (_, Some(digest)) => name.digest.as_ref() == Some(digest),
                    // Of a tag and a digest runtimes take the digest, whatever the tag stands for.
                    (Some(tag), None) => name.tag.as_ref() == Some(tag) && name.digest.is_none(),
                    (None, None) => true,
                };
                allowed.repository == name.repository && is_chosen
            }
        }
    }
}

impl Name {
    fn of(image: &str) -> Self {
        let (rest, digest) =
            image.split_once('@').map_or((image, None), |(rest, digest)| (rest, Some(digest)));
        // A colon before the last slash is that of a registry's port.
        let tagged = rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
        let (repository, tag) = tagged.map_or((rest, None), |(repository, tag)| (repository, Some(tag)));
        Self {
            repository: repository.to_owned(),
            tag: tag.map(ToOwned::to_owned),
            digest: digest.map(ToOwned::to_owned),
        }
    }

    /// Whether it means what it says wherever it is read: no way up, and nothing left out.
    fn is_plain(&self) -> bool {
        self.repository.split('/').all(is_component)
    }
}

fn is_component(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
}

#[cfg(test)]
mod tests;
