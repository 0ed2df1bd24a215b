//! Proxies that tests put between the operator and what it talks to, so that faults happen where a test wants them:
//! without any code for it in the operator, and with proof that they did happen.
//!
//! [`ApiProxy`] stands between the operator and the API server and sees requests ([`Call`]). [`SessionProxy`] stands between
//! runners and the operator and sees connections, and frames ([`Frame`]) once it was given the operator's certificate. In
//! both a test names what it means by a function and its [`Turn`], and injects a fault ([`Injection`] counts how often it
//! struck) or stops there ([`Stop`]) to do something else first, such as killing the operator. Rules are
//! lifted when their handle is dropped.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use scriptrunner_testcluster::{Cluster, Result, proxy::{ApiProxy, Fault, Moment, Refusal, Turn}};
//! # async fn example(cluster: Cluster) -> Result<()> {
//! let proxy = ApiProxy::start(cluster.client().await?).await?;
//! // The operator is started with the kubeconfig `proxy.kubeconfig()`; then:
//! let full = Fault::Refuse(Refusal { code: 413, reason: "RequestEntityTooLarge", retry_after_seconds: None });
//! let full = proxy.inject(|call| call.is("patch scriptrunners/status"), Turn::first(2), full);
//! let mut stop = proxy.stop(|call| call.is("create pods"), Turn::nth(3), Moment::After);
//! let third = stop.reached(Duration::from_secs(60)).await?;
//! // Its answer has arrived here and not in the operator, which is killed now.
//! drop(third);
//! assert_eq!(full.hits(), 2);
//! # Ok(()) }
//! ```

mod api;
mod call;
mod frames;
mod rules;
mod session;
mod streams;

pub use api::{ApiProxy, Fault, Record, Refusal};
pub use call::Call;
pub use frames::{Frame, Side};
pub use rules::{Injection, Moment, Stop, Stopped, Turn};
pub use session::{FrameFault, Identity, Link, SessionProxy};
pub use streams::HeldWatches;
