//! What a session has set, and what it is told that is set.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::DateTime;
use logweir_core::TimestampMicros;

use crate::reply::Refusal;
use crate::running::Sees;
use crate::statement::duration;

const SETTINGS_MAX: usize = 128;
const SETTING_BYTES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 128;

/// What a client calls itself; it is told what it has said.
pub(crate) const APPLICATION_NAME: &str = "application_name";
const AUTHORIZATION: &str = "session_authorization";

/// What a client is told about the server, and may ask for. It is always so.
pub(crate) const FIXED: [(&str, &str); 10] = [
    ("server_version", "15.0"),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("IntervalStyle", "postgres"),
    ("is_superuser", "off"),
    ("default_transaction_read_only", "on"),
];

/// What some ask for beside these.
const SHOWN: [(&str, &str); 8] = [
    ("server_version_num", "150000"),
    ("transaction_isolation", "read committed"),
    ("default_transaction_isolation", "read committed"),
    ("transaction_read_only", "on"),
    ("max_identifier_length", "63"),
    // JDBC asks for it before it asks for foreign keys.
    ("max_index_keys", "32"),
    ("lc_collate", "C"),
    ("bytea_output", "hex"),
];

fn is_fixed(name: &str) -> bool {
    FIXED.iter().chain(&SHOWN).any(|(fixed, _)| fixed.eq_ignore_ascii_case(name))
}

/// See the module.
pub(crate) struct Settings {
    now: Chosen,
    /// What is set after a transaction: after one that was undone, and after one that was not, in which `SET LOCAL` counts for nothing.
    transaction: Option<Box<(Chosen, Chosen)>>,
    /// How long a statement may take at most.
    longest: Duration,
}

#[derive(Clone)]
struct Chosen {
    search_path: Option<String>,
    sees: Sees,
    as_of: String,
    timeout: Duration,
    others: BTreeMap<String, String>,
}

impl Settings {
    /// Those of a session that begins, with what its client asked for.
    pub(crate) fn new(longest: Duration, user: &str, parameters: BTreeMap<String, String>) -> Self {
        let fixed = FIXED.iter().chain(&SHOWN).map(|(name, value)| (name.to_lowercase(), (*value).to_owned()));
        let own = [(AUTHORIZATION, user), (APPLICATION_NAME, "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let others = fixed.chain(own).collect();
        let now = Chosen { search_path: None, sees: Sees::default(), as_of: String::new(), timeout: longest, others };
        let mut settings = Settings { now, transaction: None, longest };
        for (name, value) in parameters {
            if ["user", "database", "replication", "options"].contains(&name.as_str()) || name.starts_with("_pq_.") {
                continue;
            }
            // What cannot be set is as it would be without.
            let _ = settings.set(&name.to_lowercase(), Some(value), false);
        }
        settings
    }

    pub(crate) fn sees(&self) -> Sees {
        self.now.sees
    }

    /// How long a statement may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.now.timeout
    }

    /// The schema of names without one.
    pub(crate) fn schema(&self) -> Option<String> {
        self.now.search_path.clone()
    }

    pub(crate) fn application_name(&self) -> &str {
        self.now.others.get(APPLICATION_NAME).map_or("", String::as_str)
    }

    /// Everything by its name.
    pub(crate) fn all(&self) -> BTreeMap<String, String> {
        let own = self.now.own().map(|(name, value)| (name.to_owned(), value));
        self.now.others.clone().into_iter().chain(own).collect()
    }

    /// A transaction begins.
    pub(crate) fn begin(&mut self) {
        self.transaction = Some(Box::new((self.now.clone(), self.now.clone())));
    }

    /// A transaction has ended.
    pub(crate) fn end(&mut self, undone: bool) {
        if let Some(transaction) = self.transaction.take() {
            let (before, kept) = *transaction;
            self.now = if undone { before } else { kept };
        }
    }

    /// Sets something, or sets it back; `local` for the transaction alone.
    pub(crate) fn set(&mut self, name: &str, value: Option<String>, local: bool) -> Result<(), Refusal> {
        self.now.set(name, value.clone(), self.longest)?;
        match &mut self.transaction {
            Some(transaction) if !local => transaction.1.set(name, value, self.longest),
            _ => Ok(()),
        }
    }

    pub(crate) fn reset_all(&mut self) {
        self.now.reset_all(self.longest);
        if let Some(transaction) = &mut self.transaction {
            transaction.1.reset_all(self.longest);
        }
    }

    /// What `SHOW` answers.
    pub(crate) fn show(&self, name: &str) -> Result<RecordBatch, Refusal> {
        let all = self.all();
        let columns: Vec<(&str, Vec<String>)> = if name == "all" {
            vec![
                ("name", all.keys().cloned().collect()),
                ("setting", all.values().cloned().collect()),
                ("description", vec![String::new(); all.len()]),
            ]
        } else {
            let value = all.get(&name.to_lowercase()).cloned();
            let value = value.ok_or_else(|| Refusal::new("42704", format!("unrecognized configuration parameter \"{name}\"")))?;
            vec![(name, vec![value])]
        };
        let fields: Vec<Field> = columns.iter().map(|(name, _)| Field::new(*name, DataType::Utf8, false)).collect();
        let arrays = columns.into_iter().map(|(_, values)| Arc::new(StringArray::from(values)) as ArrayRef).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(|_| Refusal::new("XX000", "a setting cannot be shown"))
    }
}

impl Chosen {
    /// What answers go by.
    fn own(&self) -> [(&'static str, String); 4] {
        [
            ("logweir.as_of", self.as_of.clone()),
            ("logweir.follow", if self.sees.follow { "on" } else { "off" }.to_owned()),
            ("statement_timeout", format!("{}ms", self.timeout.as_millis())),
            ("search_path", self.search_path.clone().unwrap_or_else(|| "\"$user\", public".to_owned())),
        ]
    }

    fn set(&mut self, name: &str, value: Option<String>, longest: Duration) -> Result<(), Refusal> {
        let invalid = |value: &str| Refusal::new("22023", format!("invalid value for parameter \"{name}\": \"{value}\""));
        if value.as_ref().is_some_and(|value| value.len() > SETTING_BYTES_MAX) || name.len() > NAME_BYTES_MAX {
            return Err(Refusal::new("54000", "the value of a setting is too long"));
        }
        match name {
            "logweir.as_of" => {
                let text = value.unwrap_or_default();
                self.sees.as_of = match text.as_str() {
                    "" => None,
                    _ => {
                        let moment = DateTime::parse_from_rfc3339(&text);
                        let moment = moment.map_err(|_| invalid(&text).hint("write it as 2026-11-20T10:00:00Z"))?;
                        Some(TimestampMicros(moment.timestamp_micros()))
                    }
                };
                self.as_of = text;
            }
            "logweir.follow" => {
                let word = value.unwrap_or_else(|| "off".to_owned());
                self.sees.follow = match word.to_lowercase().as_str() {
                    "on" | "true" | "yes" | "1" => true,
                    "off" | "false" | "no" | "0" => false,
                    _ => return Err(invalid(&word).hint("it is on or off")),
                };
            }
            "statement_timeout" => {
                // It can be less than the configuration says, not more.
                let asked =
                    value.as_deref().map_or(Some(Duration::ZERO), duration).ok_or_else(|| invalid(value.as_deref().unwrap_or("")))?;
                self.timeout = if asked.is_zero() { longest } else { asked.min(longest) };
            }
            "search_path" => {
                let first = value.as_deref().unwrap_or_default().split(',').map(|part| part.trim().trim_matches(['"', '\'']).to_owned());
                // Everything of PostgreSQL's is found anyway; `public` and `$user` are what a client has by itself.
                self.search_path = first.into_iter().find(|name| !["", "public", "$user", "pg_catalog"].contains(&name.as_str()));
            }
            "client_encoding" => {
                let encoding = value.unwrap_or_else(|| "utf8".to_owned()).to_lowercase();
                if !["utf8", "utf-8", "unicode", "sql_ascii"].contains(&encoding.as_str()) {
                    return Err(Refusal::new("0A000", "the encoding is UTF8"));
                }
            }
            AUTHORIZATION | "role" => {
                if value.is_some() {
                    return Err(Refusal::new("0A000", "a session stays that of its user"));
                }
            }
            "default_transaction_read_only" | "transaction_read_only" => {
                let word = value.unwrap_or_else(|| "on".to_owned()).to_lowercase();
                if ["off", "false", "no", "0"].contains(&word.as_str()) {
                    return Err(Refusal::new("25006", "everything here is to read only"));
                }
            }
            // Taken, for clients set it when they connect, and without effect: values are written in one way.
            name if is_fixed(name) => {}
            name => {
                let settings = &mut self.others;
                match value {
                    Some(_) if settings.len() >= SETTINGS_MAX && !settings.contains_key(name) => {
                        return Err(Refusal::new("53400", format!("a session has at most {SETTINGS_MAX} settings")));
                    }
                    Some(value) => {
                        settings.insert(name.to_owned(), value);
                    }
                    None if name == APPLICATION_NAME => {
                        settings.insert(name.to_owned(), String::new());
                    }
                    None => {
                        settings.remove(name);
                    }
                }
            }
        }
        Ok(())
    }

    fn reset_all(&mut self, longest: Duration) {
        (self.sees, self.as_of, self.search_path, self.timeout) = (Sees::default(), String::new(), None, longest);
        self.others.retain(|name, _| [AUTHORIZATION, APPLICATION_NAME].contains(&name.as_str()) || is_fixed(name));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let parameters = [("user", "ann"), ("application_name", "psql"), ("DateStyle", "SQL"), ("extra_float_digits", "3")];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Settings::new(Duration::from_secs(60), "ann", parameters)
    }

    #[test]
    fn a_transaction_keeps_what_was_set_in_it_and_not_for_it() {
        let mut settings = settings();
        assert_eq!((settings.application_name(), &*settings.all()["datestyle"]), ("psql", "ISO, MDY"));
        let set = |settings: &mut Settings, name: &str, value: &str, local| settings.set(name, Some(value.to_owned()), local).unwrap();
        let shown = |settings: &Settings| {
            ["search_path", "statement_timeout", "logweir.follow", "a.b"].map(|name| settings.all().get(name).cloned().unwrap_or_default())
        };
        let first = shown(&settings);
        assert_eq!(first, ["\"$user\", public", "60000ms", "off", ""]);
        for undone in [true, false] {
            settings.begin();
            set(&mut settings, "search_path", "t", false);
            set(&mut settings, "statement_timeout", "5s", true);
            set(&mut settings, "logweir.follow", "on", true);
            set(&mut settings, "a.b", "c", false);
            assert_eq!(shown(&settings), ["t", "5000ms", "on", "c"]);
            settings.end(undone);
            let after = ["t", "60000ms", "off", "c"].map(str::to_owned);
            assert_eq!(shown(&settings), if undone { first.clone() } else { after });
        }
        settings.begin();
        settings.reset_all();
        settings.end(false);
        assert_eq!((shown(&settings), settings.application_name()), (first, "psql"));
    }

    #[test]
    fn settings_are_bounded_wherever_they_are_set() {
        let mut settings = settings();
        settings.begin();
        let refused = (0..1000).any(|number| settings.set(&format!("a.b{number}"), Some("x".to_owned()), true).is_err());
        assert!(refused && settings.all().len() <= SETTINGS_MAX + 4);
        assert!(settings.set("a", Some("x".repeat(SETTING_BYTES_MAX + 1)), false).is_err());
        assert!(settings.set("logweir.as_of", Some("yesterday".to_owned()), false).is_err());
    }
}
