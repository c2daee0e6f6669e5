//! Values of the workload's columns, as SQL.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::literal;

const WORDS: [&str; 12] =
    ["Ada", "naïve", "Łódź", "東京", "O'Hara", "tab\there", "🦀🌊", "back\\slash", "\"quoted\"", "{NULL,\"}", "line\nbreak", ""];
/// Longer than what fits into a page's share for one row, so that it is kept out of line.
pub(super) const LARGE: usize = 3000;

/// A value of the account column, as SQL.
pub(super) fn account(rng: &mut StdRng, column: &str) -> String {
    let large = rng.random_ratio(1, 5);
    match column {
        "balance" => {
            format!("{}.{:04}", rng.random_range(-9_999_999_999_999_999i64..=9_999_999_999_999_999), rng.random_range(0..10_000))
        }
        "wealth" => match rng.random_range(0..6) {
            0 => "'NaN'".to_owned(),
            1 => format!("1e{}", rng.random_range(-200..200)),
            2 => "0.000".to_owned(),
            _ => format!("{}.{}", rng.random::<i64>(), rng.random::<u32>()),
        },
        "rate" => match rng.random_range(0..8) {
            0 => (*["'NaN'", "'Infinity'", "'-Infinity'", "'-0'"].choose(rng).expect("there are some")).to_owned(),
            _ => format!("'{:e}'", rng.random_range(-1.0..1.0f64) * 10f64.powi(rng.random_range(-300..300))),
        },
        "score" => format!("'{:e}'", rng.random_range(-1.0..1.0f32) * 10f32.powi(rng.random_range(-30..30))),
        "level" => rng.random::<i16>().to_string(),
        "visits" => rng.random::<i32>().to_string(),
        "active" => rng.random::<bool>().to_string(),
        "status" => literal(["new", "active", "très actif", "closed"].choose(rng).expect("there are labels")),
        "born" => match rng.random_range(0..20) {
            0 => "'infinity'".to_owned(),
            1 => "'-infinity'".to_owned(),
            2 => format!("'{:04}-03-15 BC'", rng.random_range(1..4000)),
            3 => format!("'{}-12-31'", rng.random_range(10_000..100_000)),
            _ => format!("'{:04}-{:02}-{:02}'", rng.random_range(1..10_000), rng.random_range(1..13), rng.random_range(1..29)),
        },
        "opened" | "seen" => {
            let moment = moment(rng, 1, 9999);
            match rng.random_range(0..20) {
                0 => "'infinity'".to_owned(),
                1 => "'-infinity'".to_owned(),
                2 => format!("'{} BC'", self::moment(rng, 1, 4700)),
                _ if column == "seen" => {
                    format!("'{moment}{:+03}:{:02}'", rng.random_range(-12..14), rng.random_range(0..60))
                }
                _ => format!("'{moment}'"),
            }
        }
        "pause" if rng.random_ratio(1, 12) => "'24:00:00'".to_owned(),
        "pause" => format!(
            "'{:02}:{:02}:{:02}.{:02}'",
            rng.random_range(0..24),
            rng.random_range(0..60),
            rng.random_range(0..60),
            rng.random_range(0..100)
        ),
        "stay" => format!(
            "'{} months {} days {}.{:06} seconds'",
            rng.random_range(-30..30),
            rng.random_range(-40..40),
            rng.random_range(-90_000..90_000),
            rng.random_range(0..1_000_000)
        ),
        "token" => {
            format!("'{:08x}-{:04x}-4000-8000-{:012x}'", rng.random::<u32>(), rng.random::<u16>(), rng.random_range(0..1u64 << 48))
        }
        "address" => {
            (*["'10.1.2.3'", "'10.0.0.0/8'", "'10.1.2.3/8'", "'2001:db8::1'", "'::ffff:1.2.3.4'"].choose(rng).expect("there are some"))
                .to_owned()
        }
        "photo" => {
            let mut bytes = vec![0u8; if large { LARGE } else { rng.random_range(0..60) }];
            rng.fill(&mut bytes[..]);
            format!("'\\x{}'", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        "bio" => literal(&words(rng, if large { 3 * LARGE } else { 90 })),
        "attributes" | "raw" => literal(&json(rng, if large { LARGE } else { 10 })),
        "tags" => {
            let tags: Vec<_> =
                (0..rng.random_range(0..5)).map(|_| if rng.random_ratio(1, 6) { "NULL".to_owned() } else { literal(word(rng)) }).collect();
            format!("ARRAY[{}]::text[]", tags.join(", "))
        }
        "marks" => {
            let length = if large { LARGE } else { rng.random_range(0..5) };
            let marks: Vec<_> =
                (0..length).map(|_| if rng.random_ratio(1, 8) { "NULL".to_owned() } else { rng.random::<i32>().to_string() }).collect();
            format!("'{{{}}}'", marks.join(","))
        }
        "span" => match rng.random_range(0..4) {
            0 => "'empty'".to_owned(),
            1 => "'[,7)'".to_owned(),
            _ => format!("'[{}, {}]'", rng.random_range(-100..0), rng.random_range(0..100)),
        },
        "price" => format!("'{}.{:02}'::numeric::money", rng.random_range(-9_999_999..9_999_999i64), rng.random_range(0..100)),
        "letter" => literal(["a", "Z", "", "\\"].choose(rng).expect("there are letters")),
        "code" => literal(["", "ab", "äöü", "123456"].choose(rng).expect("there are codes")),
        other => unreachable!("accounts has no column {other}"),
    }
}

/// Words up to this many characters.
pub(super) fn words(rng: &mut StdRng, characters: usize) -> String {
    let length = rng.random_range(0..=characters);
    let mut text = String::new();
    while text.chars().count() < length {
        text.push_str(word(rng));
        text.push(' ');
    }
    text.chars().take(length).collect::<String>().trim_end().to_owned()
}

fn json(rng: &mut StdRng, characters: usize) -> String {
    let value = serde_json::json!({
        "n": rng.random::<i32>(), "big": rng.random::<u64>(), "half": f64::from(rng.random_range(-1000..1000)) / 2.0,
        "list": [true, null, words(rng, 10), [], {}], "nested": { "text": words(rng, characters), "ünïcode": "\u{1F980}" },
    });
    value.to_string()
}

pub(super) fn moment(rng: &mut StdRng, from_year: u32, to_year: u32) -> String {
    let date = format!("{:04}-{:02}-{:02}", rng.random_range(from_year..=to_year), rng.random_range(1..13), rng.random_range(1..29));
    let time = format!("{:02}:{:02}:{:02}", rng.random_range(0..24), rng.random_range(0..60), rng.random_range(0..60));
    format!("{date} {time}.{:06}", rng.random_range(0..1_000_000))
}

/// One word.
pub(super) fn word(rng: &mut StdRng) -> &'static str {
    WORDS.choose(rng).expect("there are words")
}
