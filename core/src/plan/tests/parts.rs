//! Plans that are too long for one go, and what in them can wait.

use super::toy::{Toy, settings, stopped, succeeded};
use crate::{
    plan::{Action, MOST_CREATIONS, plan},
    validate::{Sources, validate},
};

const HELLO: &str = "{script: x, nodeLabelSelector: {}}";

fn actions(toy: &Toy) -> Vec<Action> {
    plan(&validate(&toy.observed.object.spec, &Sources::default()), &toy.observed, &settings(), toy.now)
        .actions
}

/// Whether nothing waits for each of the deletions that are planned.
fn deletions_over(toy: &Toy) -> Vec<bool> {
    let is_over = |action| match action {
        Action::DeletePod { is_over, .. } => Some(is_over),
        Action::CreateConfigMap(_)
        | Action::DeleteConfigMap { .. }
        | Action::CreatePod { .. }
        | Action::HandOver { .. }
        | Action::SendRun { .. }
        | Action::DeleteObject { .. } => None,
    };
    actions(toy).into_iter().filter_map(is_over).collect()
}

#[test]
fn a_plan_creates_so_many_pods_and_the_next_goes_on_with_the_rest() {
    let nodes = 2 * MOST_CREATIONS + 100;
    let mut toy = Toy::new(HELLO, nodes);
    let mut counts = Vec::new();
    while toy.created < nodes {
        let before = toy.created;
        assert!(toy.step(), "it comes to rest after {before}");
        counts.extend((toy.created > before).then(|| toy.created - before));
    }
    assert_eq!(counts, [MOST_CREATIONS, MOST_CREATIONS, 100]);
}

#[test]
fn what_is_stored_can_stay_and_what_is_in_the_way_cannot() {
    let mut toy = Toy::new(HELLO, 1);
    toy.settle();
    toy.start_all();
    toy.settle();
    toy.edit("{script: y, nodeLabelSelector: {}}");
    while deletions_over(&toy).is_empty() {
        assert!(toy.step(), "the pod of the older run is to be deleted");
    }
    assert_eq!(deletions_over(&toy), [false], "the new run waits for its end");
    toy.step();
    toy.end_all(&stopped("late"));
    toy.settle();
    toy.start_all();
    toy.settle();
    toy.end_all(&succeeded("hi"));
    while deletions_over(&toy).is_empty() {
        assert!(toy.step(), "the pod is to be cleaned up");
    }
    assert_eq!(deletions_over(&toy), [true]);
}
