//! What a runner pod's arguments tell its runner. Pure.

use anyhow::{Context, ensure};

/// As many of the arguments as a simulated runner needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    pub(crate) run: u64,
    pub(crate) attempt: u32,
    pub(crate) first_serial: u64,
    /// Executions to make; none is endless.
    pub(crate) remaining: Option<u64>,
    pub(crate) history_limit: usize,
    pub(crate) linger_seconds: u64,
    /// Address, name and authorities of the operator; none if the pod has no session.
    pub(crate) door: Option<(String, String, Vec<String>)>,
}

impl Orders {
    /// Reads `run --name value --name value ...`.
    pub(crate) fn read(args: &[String]) -> anyhow::Result<Self> {
        ensure!(args.first().is_some_and(|word| word == "run"), "the pod's arguments are {args:?}");
        let mut orders = Self { history_limit: 1, ..Self::default() };
        let (mut address, mut name, mut authorities) = (None, None, Vec::new());
        for pair in args[1..].chunks(2) {
            let [flag, value] = pair else { continue };
            let number = || value.parse::<u64>().with_context(|| format!("{flag} is {value:?}"));
            match flag.as_str() {
                "--run" => orders.run = number()?,
                "--attempt" => orders.attempt = u32::try_from(number()?)?,
                "--first-serial" => orders.first_serial = number()?,
                "--remaining" if value == "endless" => orders.remaining = None,
                "--remaining" => orders.remaining = Some(number()?),
                "--history-limit" => orders.history_limit = usize::try_from(number()?)?,
                "--linger-seconds" => orders.linger_seconds = number()?,
                "--session-address" => address = Some(value.clone()),
                "--session-name" => name = Some(value.clone()),
                "--session-authority" => authorities.push(value.clone()),
                _ => {}
            }
        }
        orders.door = address.zip(name).map(|(address, name)| (address, name, authorities));
        Ok(orders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> anyhow::Result<Orders> {
        Orders::read(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_operators_arguments_are_read() {
        let orders = read(
            "run --protocol 1 --node n1 --run 3 --attempt 2 --first-serial 5 --remaining 1 --history-limit 5 \
             --session-address 127.0.0.1:8443 --session-name door --session-authority AA --session-authority BB \
             --linger-seconds 30",
        )
        .unwrap();
        let door = ("127.0.0.1:8443".to_owned(), "door".to_owned(), vec!["AA".to_owned(), "BB".to_owned()]);
        let expected = Orders {
            run: 3,
            attempt: 2,
            first_serial: 5,
            remaining: Some(1),
            history_limit: 5,
            linger_seconds: 30,
            door: Some(door),
        };
        assert_eq!(orders, expected);
    }

    #[test]
    fn a_pod_without_a_session_has_no_door() {
        let orders = read("run --run 1 --attempt 1 --first-serial 1 --remaining endless").unwrap();
        assert_eq!((orders.door, orders.remaining), (None, None));
        assert!(read("sleep 5").is_err());
        assert!(read("run --run x").is_err());
    }
}
