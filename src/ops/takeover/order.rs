//! The order of the versions of one model: by times, by numbers in names, by what people write there.
//!
//! Numbers and dates in names of one pattern count more than times, which copying destroys; times more
//! than words. Files that were written within two seconds were copied together: their times say nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::candidate::Candidate;
use crate::format::manifest::Mtime;

/// Times that are nearer to each other than this are of one copy, in seconds.
const COPY_SECONDS: i64 = 2;

/// What decides where nothing else does: the time, what the name says, the path.
type Key<'a> = (i64, Option<&'a [u64]>, i32, &'a [u64], &'a Path, usize);

/// The members, the earliest first.
pub(super) fn ordered(candidates: &[Candidate], members: Vec<usize>) -> Vec<usize> {
    let clusters = clusters(candidates, &members);
    let key = |place: usize| -> Key<'_> {
        let Candidate { name, path, .. } = &candidates[place];
        let state = &name.state;
        let (date, numbers) = (state.date.as_deref(), &state.numbers[..]);
        (clusters[&place], date, state.rank, numbers, path, place)
    };
    let (after, mut before_count) = chains(candidates, &members);
    let is_free = |place: &usize, counts: &BTreeMap<usize, usize>| counts.get(place) == Some(&0);
    let free = members.iter().filter(|place| is_free(place, &before_count));
    let mut ready: BinaryHeap<_> = free.map(|place| Reverse(key(*place))).collect();
    let mut ordered = Vec::with_capacity(members.len());
    while let Some(Reverse((.., place))) = ready.pop() {
        ordered.push(place);
        for next in after.get(&place).into_iter().flatten() {
            let count = before_count.get_mut(next).expect("every member has a count");
            *count -= 1;
            if *count == 0 {
                ready.push(Reverse(key(*next)));
            }
        }
    }
    assert_eq!(ordered.len(), members.len(), "chains have no rings");
    ordered
}

/// Where the time of each member is among those of all, counting times of one copy as the same. What a tool
/// noted is no time of a copy.
fn clusters(candidates: &[Candidate], members: &[usize]) -> BTreeMap<usize, i64> {
    let mut times: Vec<_> =
        members.iter().map(|place| (time_of(&candidates[*place]), *place)).collect();
    times.sort_unstable();
    let (mut cluster, mut last, mut clusters) = (0, None, BTreeMap::new());
    for (time, place) in times {
        let is_noted = candidates[place].noted.time.is_some();
        let is_later = |last: (i64, u32)| match is_noted {
            true => last < time,
            false => COPY_SECONDS < time.0.saturating_sub(last.0),
        };
        if last.is_some_and(is_later) {
            cluster += 1;
        }
        last = Some(time);
        clusters.insert(place, cluster);
    }
    clusters
}

/// When a candidate was made: as a tool noted, else as its name says, else when its file was written.
/// Seconds, and parts of one where they are known.
fn time_of(candidate: &Candidate) -> (i64, u32) {
    if let Some(Mtime { seconds, nanos }) = candidate.noted.time {
        return (seconds, nanos);
    }
    let written = candidate.modified.seconds;
    let date = candidate.name.state.date.as_deref();
    (date.and_then(|date| seconds_of(date, written)).unwrap_or(written), 0)
}

/// Seconds of a date in a name. Without a time of day it is the time at which the file was written, if
/// that was on this day, else noon; without a day likewise.
fn seconds_of(date: &[u64], written: i64) -> Option<i64> {
    let part = |index: usize, default: u64| date.get(index).copied().unwrap_or(default);
    let (year, month, day) = (part(0, 1970), part(1, 1), part(2, 1));
    let small = |number: u64| i8::try_from(number).ok();
    let time = part(3, 120_000);
    let (hour, minute, second) = (time / 10_000, time / 100 % 100, time % 100);
    let moment = DateTime::new(
        i16::try_from(year).ok()?,
        small(month)?,
        small(day)?,
        small(hour)?,
        small(minute)?,
        small(second)?,
        0,
    );
    let moment = moment.ok()?;
    let file = jiff::Timestamp::from_second(written).ok()?.to_zoned(TimeZone::UTC).datetime();
    let same_month = (file.year(), file.month()) == (moment.year(), moment.month());
    let is_then = match date.len() {
        2 => same_month,
        3 => same_month && file.day() == moment.day(),
        _ => false,
    };
    if is_then {
        return Some(written);
    }
    Some(moment.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

/// After each member those that names put behind it, and before each how many there are: names of one
/// pattern that differ in numbers or dates, or what another tool calls the number of a version. Each member
/// is in one chain at most, so there are no rings.
fn chains(
    candidates: &[Candidate],
    members: &[usize],
) -> (BTreeMap<usize, Vec<usize>>, BTreeMap<usize, usize>) {
    let mut patterns = BTreeMap::<_, Vec<usize>>::new();
    let mut registered = Vec::new();
    for place in members {
        let name = &candidates[*place].name;
        let state = &name.state;
        let has_number = !state.numbers.is_empty() || state.date.is_some();
        let noted = &candidates[*place].noted;
        if 0 < noted.order {
            registered.push(*place);
        } else if has_number && !name.is_copy && noted.time.is_none() {
            let kinds = (state.numbers.len(), state.date.as_ref().map(Vec::len));
            patterns.entry((&name.stem, &state.pattern, kinds)).or_default().push(*place);
        }
    }
    let mut after = BTreeMap::<usize, Vec<usize>>::new();
    let mut counts: BTreeMap<usize, usize> = members.iter().map(|place| (*place, 0)).collect();
    let number = |place: usize| {
        let state = &candidates[place].name.state;
        (candidates[place].noted.order, &state.date, &state.numbers)
    };
    for mut places in patterns.into_values().chain([registered]) {
        places.sort_by(|a, b| number(*a).cmp(&number(*b)));
        let mut groups = places.chunk_by(|a, b| number(*a) == number(*b)).peekable();
        while let (Some(group), Some(next)) = (groups.next(), groups.peek()) {
            for (place, behind) in group.iter().flat_map(|it| next.iter().map(move |to| (it, to))) {
                after.entry(*place).or_default().push(*behind);
                *counts.get_mut(behind).expect("it is a member") += 1;
            }
        }
    }
    (after, counts)
}
