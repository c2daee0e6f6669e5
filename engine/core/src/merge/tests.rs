use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int16Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow_buffer::BooleanBuffer;
use arrow_schema::TimeUnit;

use super::*;

/// A small generator: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What a change does.
#[derive(Clone, Copy, PartialEq)]
enum What {
    Put,
    Delete,
    Truncate,
}

/// The obvious way: one change after the other.
fn naive(changes: &[(Option<u64>, What)]) -> Vec<u64> {
    let mut newest = BTreeMap::new();
    for (row, (key, what)) in changes.iter().enumerate() {
        match what {
            What::Put => drop(newest.insert(*key, row as u64)),
            What::Delete => drop(newest.remove(key)),
            What::Truncate => newest.clear(),
        }
    }
    let mut rows: Vec<u64> = newest.into_values().collect();
    rows.sort_unstable();
    rows
}

type Columns = fn(&[Option<u64>]) -> Vec<ArrayRef>;

/// A key of each form, made of a number.
const FORMS: [Columns; 5] = [
    |keys| vec![Arc::new(keys.iter().map(|key| key.map(|key| key as i64 - 7)).collect::<Int64Array>())],
    |keys| vec![Arc::new(keys.iter().map(|key| key.map(|key| key as i16 - 7)).collect::<Int16Array>())],
    |keys| vec![Arc::new(keys.iter().map(|key| key.map(|key| key as i64)).collect::<TimestampMicrosecondArray>())],
    |keys| vec![Arc::new(keys.iter().map(|key| key.map(|key| "x".repeat(key as usize))).collect::<StringArray>())],
    |keys| {
        vec![
            Arc::new(keys.iter().map(|key| key.map(|key| (key / 5) as i64)).collect::<Int64Array>()),
            Arc::new(keys.iter().map(|key| key.filter(|key| key % 5 > 0).map(|key| (key % 5).to_string())).collect::<StringArray>()),
        ]
    },
];

/// Every form of key, places by number and by themselves, batches in and out of order: what stands is what stands after one change at a time.
#[test]
fn the_newest_stand() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for round in 0..300 {
        let count = random.below(60) as usize;
        let keys = 1 + random.below(12);
        let changes: Vec<(Option<u64>, What)> = (0..count)
            .map(|_| {
                let what = match random.below(20) {
                    0 => What::Truncate,
                    1..6 => What::Delete,
                    _ => What::Put,
                };
                (Some(random.below(keys)).filter(|key| *key != 11), what)
            })
            .collect();
        // A truncate has a batch of its own, as it has in a log.
        let mut cuts: Vec<usize> = (0..count).filter(|row| random.below(4) == 0 || changes[*row].1 == What::Truncate).collect();
        cuts.extend(cuts.clone().iter().filter(|row| changes[**row].1 == What::Truncate).map(|row| row + 1));
        cuts.extend([0, count]);
        cuts.sort_unstable();
        cuts.dedup();
        let mut batches: Vec<(usize, usize)> = cuts.windows(2).map(|pair| (pair[0], pair[1])).collect();
        let expected = naive(&changes);
        for form in FORMS {
            let mut by_row = LatestPerKey::<()>::new(&types(&form(&[]))).unwrap();
            let mut by_place = LatestPerKey::<(u64, [u8; 2])>::new(&types(&form(&[]))).unwrap();
            for i in (1..batches.len()).rev() {
                batches.swap(i, random.below(i as u64 + 1) as usize);
            }
            let place = |row: usize| (row as u64 / 3, [0, (row % 3) as u8]);
            for (number, &(from, to)) in batches.iter().enumerate() {
                if changes[from].1 == What::Truncate {
                    by_row.truncate((), from as u64);
                    by_place.truncate(place(from), 1_000 * number as u64);
                    continue;
                }
                let key = form(&changes[from..to].iter().map(|(key, _)| *key).collect::<Vec<_>>());
                let deleted = BooleanBuffer::from_iter(changes[from..to].iter().map(|(_, what)| *what == What::Delete));
                let deleted = (deleted.count_set_bits() > 0).then_some(&deleted);
                by_row.push(KeyedChanges { key: &key, deleted, places: &[], first_row: from as u64 }).unwrap();
                let places: Vec<_> = (from..to).map(place).collect();
                by_place.push(KeyedChanges { key: &key, deleted, places: &places, first_row: 1_000 * number as u64 }).unwrap();
            }
            let mut standing: Vec<u64> = by_row.standing().collect();
            standing.sort_unstable();
            assert_eq!(standing, expected, "round {round}");
            let row_of = |row: u64| batches[(row / 1_000) as usize].0 as u64 + row % 1_000;
            let mut standing: Vec<u64> = by_place.standing().map(row_of).collect();
            standing.sort_unstable();
            assert_eq!(standing, expected, "round {round}");
            assert!(by_row.len() >= expected.len() && by_row.bytes() < 1 << 20);
        }
    }
}

fn types(key: &[ArrayRef]) -> Vec<DataType> {
    key.iter().map(|column| column.data_type().clone()).collect()
}

#[test]
fn what_is_not_as_announced_is_refused() {
    assert!(LatestPerKey::<()>::new(&[]).is_err());
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let other: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let short: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let int = DataType::Int64;
    for (types, key) in [
        (vec![int.clone()], vec![Arc::clone(&other)]),
        (vec![int.clone()], vec![Arc::clone(&column), Arc::clone(&column)]),
        (vec![int.clone(), int.clone()], vec![Arc::clone(&column)]),
        (vec![int.clone(), int.clone()], vec![Arc::clone(&column), Arc::clone(&other)]),
        (vec![int.clone(), int], vec![column, short]),
        (vec![DataType::Timestamp(TimeUnit::Second, None)], vec![other]),
    ] {
        let mut latest = LatestPerKey::<()>::new(&types).unwrap();
        assert!(latest.push(KeyedChanges { key: &key, deleted: None, places: &[], first_row: 0 }).is_err(), "{types:?}");
    }
}

/// The walk from the newest change to the oldest, for all keys at once and in shares, some of which are halved on the way.
#[test]
fn the_first_of_a_walk_backwards_stands() {
    let mut random = Random(0x0bad_cafe_1234_5671);
    for round in 0..200 {
        let keys = 1 + random.below(40);
        let changes: Vec<(Option<u64>, What)> = (0..random.below(200))
            .map(|_| {
                let what = if random.below(4) == 0 { What::Delete } else { What::Put };
                (Some(random.below(keys)).filter(|key| *key != 11), what)
            })
            .collect();
        let mut cuts: Vec<usize> = (0..changes.len()).filter(|_| random.below(9) == 0).chain([0, changes.len()]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let batches: Vec<(usize, usize)> = cuts.windows(2).map(|pair| (pair[0], pair[1])).rev().collect();
        let expected = naive(&changes);
        for (number, form) in FORMS.into_iter().enumerate() {
            let types = types(&form(&[]));
            let mut ways: Vec<NewestFirst> = vec![NewestFirst::new(&types, Share::ALL).unwrap()];
            if number < 2 {
                ways.push(NewestFirst::within(&types[0], &(-7..=60)).unwrap());
            }
            for mut seen in ways {
                let mut standing: Vec<u64> = Vec::new();
                // What is still to be gone through, and from where on it is news.
                let mut shares = Vec::new();
                let (mut news, mut halved) = (0, 0);
                loop {
                    for (step, &(from, to)) in batches.iter().enumerate() {
                        if random.below(6) == 0
                            && halved < 8
                            && let Some(other) = seen.halve()
                        {
                            halved += 1;
                            shares.push((other, step.max(news)));
                        }
                        let key = form(&changes[from..to].iter().map(|(key, _)| *key).collect::<Vec<_>>());
                        let deleted = BooleanBuffer::from_iter(changes[from..to].iter().map(|(_, what)| *what == What::Delete));
                        let room = seen.bytes_with(to - from);
                        let stand = seen.push(&key, Some(&deleted)).unwrap();
                        assert!(seen.bytes() <= room.max(16 << 10), "{} of {room} bytes", seen.bytes());
                        if step >= news {
                            standing.extend(stand.set_indices().map(|row| (from + row) as u64));
                        }
                    }
                    let Some((share, step)) = shares.pop() else { break };
                    (seen, news) = (NewestFirst::new(&types, share).unwrap(), step);
                }
                standing.sort_unstable();
                assert_eq!(standing, expected, "round {round}, form {number}");
            }
        }
    }
    let key: ArrayRef = Arc::new(Int64Array::from(vec![1, 9]));
    assert!(NewestFirst::within(&DataType::Int64, &(1..=8)).unwrap().push(&[Arc::clone(&key)], None).is_err());
    assert!(NewestFirst::within(&DataType::Utf8, &(1..=8)).is_err());
    assert!(NewestFirst::new(&[DataType::Int32], Share::ALL).unwrap().push(&[key], None).is_err());
}
