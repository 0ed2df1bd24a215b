//! Changes that make a valid document into one that nobody expects. Pure.

use proptest::{prelude::*, sample::Index};
use scriptrunner_api::hostile::{documents, texts};
use serde_json::{Value, json};

/// A request that is larger is refused by API servers (`MaxRequestBodyBytes`), and so is never read by us.
const MOST_REPEATED_BYTES: usize = 3 << 20;

/// One change of a document.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Another value in the place of one.
    Replace(Index, Value),
    /// Another value at this place.
    At(String, Value),
    /// A member or an item less.
    Remove(Index),
    /// An item many times, as far as an API server takes that, or a member under another name.
    Repeat(Index, usize),
    /// Bytes in the place of some; changes of bytes come last, and every change after one is of bytes.
    Bytes(Index, usize, Vec<u8>),
    /// Nothing more after this byte.
    Cut(Index),
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    prop_oneof![
        12 => (place(), odd()).prop_map(|(place, value)| Change::Replace(place, value)),
        3 => place().prop_map(Change::Remove),
        2 => (place(), 1..300_usize).prop_map(|(place, times)| Change::Repeat(place, times)),
        1 => (place(), 0..20_usize, prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(place, length, bytes)| Change::Bytes(place, length, bytes)),
        1 => place().prop_map(Change::Cut),
    ]
}

/// Any JSON.
pub(super) fn json() -> impl Strategy<Value = Value> {
    odd().prop_recursive(8, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::hash_map(key(), inner, 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    let known = [
        "metadata",
        "spec",
        "status",
        "nodes",
        "history",
        "record",
        "snapshot",
        "hello",
        "labels",
        "uid",
        "containerStatuses",
        "state",
        "terminated",
        "conditions",
        "run",
        "v",
        "r",
        "a",
        "q",
        "s",
        "n",
        "x",
    ];
    prop_oneof![prop::sample::select(known.to_vec()).prop_map(str::to_owned), any::<String>()]
}

/// The fewest values among which is one that every kind of value is not meant to be.
pub(super) fn extremes() -> [Value; 6] {
    let (all, digits) = (texts().collect::<String>(), u64::MAX.to_string());
    [
        json!(u64::MAX),
        json!(i64::MAX),
        json!(u32::MAX),
        json!(all),
        json!(digits),
        json!("9999-12-31T23:59:59Z"),
    ]
}

/// Values that are at the edge of what can be meant, or beyond.
fn odd() -> impl Strategy<Value = Value> {
    let numbers = [
        json!(0),
        json!(-1),
        json!(1),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e308),
        json!(0.1),
    ];
    let numbers_in_32 =
        [json!(u32::MAX), json!(i32::MAX), json!(i32::MIN), json!(1_u64 << 20), json!(1_u64 << 32)];
    let words = [
        "Running",
        "Failed",
        "Succeeded",
        "Stopped",
        "Unknown",
        "Pending",
        "Starting",
        "Skipped",
        "OOMKilled",
        "StartError",
        "Interrupted",
        "NoSession",
        "True",
        "Never",
        "n1",
        "uid",
        "18446744073709551615",
        "-1",
        "100%",
        "9999-12-31T23:59:59Z",
        "-009999-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "2026-02-30T25:61:61Z",
    ];
    prop_oneof![
        prop::sample::select([&numbers[..], &numbers_in_32[..]].concat()),
        prop::sample::select(words.to_vec()).prop_map(Value::from),
        prop::sample::select(texts().collect::<Vec<_>>()).prop_map(Value::from),
        prop::sample::select(vec![
            Value::Null,
            json!(true),
            json!([]),
            json!({}),
            json!([[]]),
            json!({"": {}})
        ]),
        any::<String>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (1..20_000_usize).prop_map(|length| "x".repeat(length).into()),
        (1..100_usize).prop_map(|depth| (0..depth).fold(Value::Null, |inner, _| json!([inner]))),
        prop::sample::select(documents())
            .prop_map(|document| String::from_utf8_lossy(&document).into_owned().into()),
    ]
}

/// The document as bytes, with these changes.
pub(super) fn changed(document: &Value, changes: &[Change]) -> Vec<u8> {
    let mut document = document.clone();
    let (of_bytes, of_values): (Vec<_>, Vec<_>) =
        changes.iter().partition(|change| matches!(change, Change::Bytes(..) | Change::Cut(_)));
    for change in of_values {
        change_value(&mut document, change);
    }
    let mut bytes = document.to_string().into_bytes();
    for change in of_bytes {
        match change {
            Change::Bytes(place, length, with) => {
                let start = place.index(bytes.len() + 1);
                let end = bytes.len().min(start + length);
                bytes.splice(start..end, with.iter().copied());
            }
            Change::Cut(place) => bytes.truncate(place.index(bytes.len() + 1)),
            Change::Replace(..) | Change::At(..) | Change::Remove(_) | Change::Repeat(..) => {}
        }
    }
    bytes
}

fn change_value(document: &mut Value, change: &Change) {
    let places = places(document);
    let at = |index: &Index| places[index.index(places.len())].clone();
    match change {
        Change::Replace(index, value) => replace(document, &at(index), value),
        Change::At(place, value) => replace(document, place, value),
        Change::Remove(index) => repeat(document, &at(index), 0),
        Change::Repeat(index, times) => repeat(document, &at(index), *times),
        Change::Bytes(..) | Change::Cut(_) => {}
    }
}

fn replace(document: &mut Value, place: &str, value: &Value) {
    if let Some(found) = document.pointer_mut(place) {
        *found = value.clone();
    }
}

fn repeat(document: &mut Value, place: &str, times: usize) {
    let Some((parent, name)) = place.rsplit_once('/') else { return };
    match document.pointer_mut(parent) {
        Some(Value::Array(items)) => {
            let item = items.remove(name.parse().unwrap_or(0));
            let times = times.min(MOST_REPEATED_BYTES / item.to_string().len());
            items.extend(std::iter::repeat_n(item, times));
        }
        Some(Value::Object(members)) => {
            let found = members.remove(&name.replace("~1", "/").replace("~0", "~"));
            members.extend(found.filter(|_| times > 0).map(|found| (format!("{name}{times}"), found)));
        }
        _ => {}
    }
}

/// The JSON pointer of every value in it, its own included.
pub(super) fn places(document: &Value) -> Vec<String> {
    let mut places = Vec::new();
    collect_places(document, &mut String::new(), &mut places);
    places
}

fn collect_places(value: &Value, place: &mut String, places: &mut Vec<String>) {
    places.push(place.clone());
    let length = place.len();
    let mut inner = |name: &str, value: &Value| {
        place.push('/');
        place.push_str(&name.replace('~', "~0").replace('/', "~1"));
        collect_places(value, place, places);
        place.truncate(length);
    };
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| inner(&index.to_string(), item));
        }
        Value::Object(members) => members.iter().for_each(|(name, member)| inner(name, member)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
