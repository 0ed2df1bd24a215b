//! Folds node names into a short text for people, `worker01`, `worker02`, `worker07` into `worker[01-02,07]`. Pure.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write,
};

/// Longest folded text in an output group, in bytes.
pub const MAX_FOLDED_BYTES: usize = 1024;
/// A longer run of digits is an identifier, not a number, and is taken as text.
const MAX_NUMBER_DIGITS: usize = 18;

/// Text that names all nodes, sorted naturally, without spaces: `etcd,worker[01-17,20],worker[100-250].eu`. Names are folded
/// where they differ only in one number of the same count of digits; of several such numbers, the one with the most
/// values, of equals the last. A text over `limit` bytes ends in ` … +N` instead, N being the count of names not shown.
///
/// A `limit` under 32 bytes may be exceeded by that ending alone. Duplicate names count once.
pub fn fold_names<'a>(names: impl IntoIterator<Item = &'a str>, limit: usize) -> String {
    let names: BTreeSet<&str> = names.into_iter().collect();
    let patterns = patterns(&names);
    let whole =
        patterns.iter().map(|pattern| pattern.text(pattern.ranges.len())).collect::<Vec<_>>().join(",");
    if whole.len() <= limit { whole } else { shortened(&patterns, names.len(), limit) }
}

/// Names that differ in one number only, or one name.
struct Pattern<'a> {
    prefix: &'a str,
    suffix: &'a str,
    /// Digits of the number; 0 for a plain name, which then is the prefix.
    width: usize,
    /// First and last number of each unbroken range, ascending.
    ranges: Vec<(u64, u64)>,
}

impl Pattern<'_> {
    /// The pattern with the first `shown` of its ranges.
    fn text(&self, shown: usize) -> String {
        let Self { prefix, suffix, width, ranges } = self;
        if *width == 0 {
            return (*prefix).to_owned();
        }
        let ranges = &ranges[..shown];
        if let [(first, last)] = ranges
            && first == last
        {
            return format!("{prefix}{first:0width$}{suffix}");
        }
        let mut text = format!("{prefix}[");
        for (position, (first, last)) in ranges.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            let range = if first == last {
                write!(text, "{comma}{first:0width$}")
            } else {
                write!(text, "{comma}{first:0width$}-{last:0width$}")
            };
            range.expect("writing to a string should succeed");
        }
        text + "]" + suffix
    }

    /// How many names the first `shown` ranges stand for.
    fn count(&self, shown: usize) -> usize {
        self.ranges[..shown]
            .iter()
            .map(|(first, last)| usize::try_from(last - first).map_or(usize::MAX, |more| more + 1))
            .sum()
    }
}

/// As many ranges, from the first, as fit beside the ending.
fn shortened(patterns: &[Pattern<'_>], total: usize, limit: usize) -> String {
    let ending = |hidden: usize| format!(" … +{hidden}");
    let room = limit.saturating_sub(ending(total).len());
    let (mut text, mut shown) = (String::new(), 0);
    for pattern in patterns {
        let comma = if text.is_empty() { "" } else { "," };
        let left = room.saturating_sub(text.len() + comma.len());
        // The length grows with the number of ranges (one more never saves the brackets), so the cut is searched.
        let counts: Vec<usize> = (1..=pattern.ranges.len().min(left)).collect();
        let fitting = counts.partition_point(|count| pattern.text(*count).len() <= left);
        if fitting > 0 {
            text = text + comma + &pattern.text(fitting);
            shown += pattern.count(fitting);
        }
        if fitting < pattern.ranges.len() {
            break;
        }
    }
    (text + &ending(total - shown)).trim_start().to_owned()
}

/// A run of digits in a name that may be a number to fold.
#[derive(Clone, Copy)]
struct Number {
    start: usize,
    end: usize,
    value: u64,
}

fn numbers(name: &str) -> Vec<Number> {
    let mut numbers = Vec::new();
    let mut start = 0;
    for run in name.split_inclusive(|char: char| !char.is_ascii_digit()) {
        let digits = run.bytes().take_while(u8::is_ascii_digit).count();
        if (1..=MAX_NUMBER_DIGITS).contains(&digits)
            && let Ok(value) = name[start..start + digits].parse()
        {
            numbers.push(Number { start, end: start + digits, value });
        }
        start += run.len();
    }
    numbers
}

/// The name with every number replaced by as many hashes: names of one shape may be folded.
fn shape(name: &str, numbers: &[Number]) -> String {
    let mut shape = String::with_capacity(name.len());
    let mut end = 0;
    for number in numbers {
        shape.push_str(&name[end..number.start]);
        shape.extend(std::iter::repeat_n('#', number.end - number.start));
        end = number.end;
    }
    shape + &name[end..]
}

fn patterns<'a>(names: &BTreeSet<&'a str>) -> Vec<Pattern<'a>> {
    let mut shapes: BTreeMap<String, Vec<(&'a str, Vec<Number>)>> = BTreeMap::new();
    for name in names {
        let numbers = numbers(name);
        shapes.entry(shape(name, &numbers)).or_default().push((name, numbers));
    }
    let mut patterns: Vec<(&str, Pattern<'_>)> = shapes.into_values().flat_map(of_one_shape).collect();
    patterns.sort_by(|(left, _), (right, _)| natural(left, right));
    patterns.into_iter().map(|(_, pattern)| pattern).collect()
}

/// The patterns of names of one shape, each with its first name.
fn of_one_shape<'a>(names: Vec<(&'a str, Vec<Number>)>) -> Vec<(&'a str, Pattern<'a>)> {
    let columns = names.first().map_or(0, |(_, numbers)| numbers.len());
    let values =
        |column: usize| names.iter().map(|(_, numbers)| numbers[column].value).collect::<BTreeSet<_>>();
    // The last of equal maxima is what `max_by_key` returns.
    let Some(column) = (0..columns).max_by_key(|column| values(*column).len()) else {
        return names.into_iter().map(|(name, _)| (name, plain(name))).collect();
    };
    let mut groups: HashMap<(&str, &str), Vec<(u64, &'a str)>> = HashMap::new();
    for (name, numbers) in &names {
        let Number { start, end, value } = numbers[column];
        groups.entry((&name[..start], &name[end..])).or_default().push((value, name));
    }
    groups.into_iter().map(|((prefix, suffix), members)| folded(prefix, suffix, members)).collect()
}

fn plain(name: &str) -> Pattern<'_> {
    Pattern { prefix: name, suffix: "", width: 0, ranges: vec![(0, 0)] }
}

fn folded<'a>(prefix: &'a str, suffix: &'a str, mut members: Vec<(u64, &'a str)>) -> (&'a str, Pattern<'a>) {
    members.sort_unstable();
    let first_name = members.first().map_or("", |(_, name)| name);
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for (value, _) in members {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == value => *last = value,
            _ => ranges.push((value, value)),
        }
    }
    let width = first_name.len() - prefix.len() - suffix.len();
    (first_name, Pattern { prefix, suffix, width, ranges })
}

/// Order in which people count: `node9` before `node10`.
fn natural(left: &str, right: &str) -> Ordering {
    let (mut left_rest, mut right_rest) = (left, right);
    loop {
        let (left_part, right_part) = (part(left_rest), part(right_rest));
        if left_part.is_empty() || right_part.is_empty() {
            return left_part.len().cmp(&right_part.len()).then_with(|| left.cmp(right));
        }
        let both_numbers =
            [left_part, right_part].iter().all(|part| part.starts_with(|c: char| c.is_ascii_digit()));
        let order = if both_numbers {
            let (left, right) = (left_part.trim_start_matches('0'), right_part.trim_start_matches('0'));
            left.len().cmp(&right.len()).then_with(|| left.cmp(right))
        } else {
            left_part.cmp(right_part)
        };
        if order != Ordering::Equal {
            return order;
        }
        left_rest = &left_rest[left_part.len()..];
        right_rest = &right_rest[right_part.len()..];
    }
}

/// The leading run of digits, or else of other characters.
fn part(text: &str) -> &str {
    let is_number = text.starts_with(|char: char| char.is_ascii_digit());
    let end = text.find(|char: char| char.is_ascii_digit() != is_number).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests;
