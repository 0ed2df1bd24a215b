//! The bodies of watches: passed on as they come, held back, or cut.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::stream::{Stream, unfold};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::sync::watch;

/// What befalls the watches of each resource.
#[derive(Default)]
pub(super) struct Streams {
    of_resources: Mutex<BTreeMap<String, watch::Sender<Orders>>>,
}

/// What befalls the watches of one resource.
#[derive(Clone, Default)]
struct Orders {
    /// Watches that began before this many cuts end.
    cuts: u64,
    /// Counts the events that are held back, while they are.
    held: Option<Arc<AtomicU64>>,
}

impl Streams {
    fn orders(&self, resource: &str) -> watch::Sender<Orders> {
        let mut all = self.of_resources.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(resource.to_owned()).or_default().clone()
    }

    /// Ends every watch of a resource, and says how many there were.
    pub(super) fn cut(&self, resource: &str) -> usize {
        let orders = self.orders(resource);
        let watches = orders.receiver_count();
        orders.send_modify(|orders| orders.cuts += 1);
        watches
    }

    /// Holds back what the watches of a resource bring, until the result is dropped.
    pub(super) fn hold(&self, resource: &str) -> HeldWatches {
        let (orders, held) = (self.orders(resource), Arc::new(AtomicU64::default()));
        orders.send_modify(|orders| orders.held = Some(held.clone()));
        HeldWatches { orders, held }
    }

    /// What is passed on of the body of a watch.
    pub(super) fn pass_on<B>(
        &self,
        resource: &str,
        body: B,
    ) -> impl Stream<Item = io::Result<Frame<Bytes>>> + use<B>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let orders = self.orders(resource).subscribe();
        let cuts = orders.borrow().cuts;
        unfold((body, orders), move |(mut body, mut orders)| async move {
            let is_cut = |orders: &Orders| orders.cuts > cuts;
            let cut = || io::Error::other("the watch was cut");
            let frame = tokio::select! {
                frame = body.frame() => frame?.map_err(io::Error::other),
                _ = orders.wait_for(is_cut) => Err(cut()),
            };
            let held = orders.borrow().held.clone();
            if let (Some(held), Ok(_)) = (held, &frame) {
                held.fetch_add(1, Ordering::Relaxed);
                let is_free = |orders: &Orders| orders.held.is_none() || is_cut(orders);
                let freed = orders.wait_for(is_free).await.is_ok_and(|orders| !is_cut(&orders));
                return Some((if freed { frame } else { Err(cut()) }, (body, orders)));
            }
            Some((frame, (body, orders)))
        })
    }
}

/// Watches whose events are held back until this is dropped.
#[must_use = "events pass again once this is dropped"]
pub struct HeldWatches {
    orders: watch::Sender<Orders>,
    held: Arc<AtomicU64>,
}

impl HeldWatches {
    /// How many watches have something that they do not pass on.
    pub fn hits(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}

impl Drop for HeldWatches {
    fn drop(&mut self) {
        self.orders.send_modify(|orders| orders.held = None);
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Poll};

    use futures::{StreamExt, channel::mpsc, poll};
    use http_body_util::StreamBody;

    use super::*;

    fn text(item: Option<io::Result<Frame<Bytes>>>) -> String {
        item.unwrap().map_or_else(
            |error| error.to_string(),
            |frame| String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap(),
        )
    }

    fn event(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn events_are_held_back_and_come_later() {
        let streams = Streams::default();
        let (events, body) = mpsc::unbounded::<io::Result<_>>();
        let mut passed = pin!(streams.pass_on("pods", StreamBody::new(body)));
        events.unbounded_send(Ok(event("one"))).unwrap();
        assert_eq!(text(passed.next().await), "one");
        let (held, others) = (streams.hold("pods"), streams.hold("nodes"));
        events.unbounded_send(Ok(event("two"))).unwrap();
        assert!(matches!(poll!(passed.next()), Poll::Pending));
        assert_eq!((held.hits(), others.hits()), (1, 0));
        drop(held);
        assert_eq!(text(passed.next().await), "two");
        drop(events);
        assert!(passed.next().await.is_none());
    }

    #[tokio::test]
    async fn a_watch_is_cut_even_while_it_is_held() {
        let streams = Streams::default();
        let (events, body) = mpsc::unbounded::<io::Result<_>>();
        let mut passed = pin!(streams.pass_on("pods", StreamBody::new(body)));
        let _held = streams.hold("pods");
        events.unbounded_send(Ok(event("one"))).unwrap();
        assert!(matches!(poll!(passed.next()), Poll::Pending));
        assert_eq!(streams.cut("pods"), 1);
        assert_eq!(text(passed.next().await), "the watch was cut");
        let (events, body) = mpsc::unbounded::<io::Result<Frame<Bytes>>>();
        let mut idle = pin!(streams.pass_on("nodes", StreamBody::new(body)));
        assert!(matches!(poll!(idle.next()), Poll::Pending));
        assert_eq!((streams.cut("pods"), streams.cut("nodes")), (1, 1));
        assert_eq!(text(idle.next().await), "the watch was cut");
        drop(events);
    }
}
