//! What a client asks for, by the words that a statement begins with.
//!
//! Queries are the engine's; what is about the session itself (transactions, settings, cursors) is read here. Everything else would
//! write, or is not there.

use std::time::Duration;

use crate::reply::Refusal;

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Empty,
    /// For the engine, as it stands.
    Query,
    Begin,
    Commit,
    Rollback,
    /// Does nothing, as there is nothing to undo; answered by its tag.
    Nothing(&'static str),
    Set {
        name: String,
        value: Option<String>,
        /// Until the end of the transaction.
        local: bool,
    },
    Savepoint(String),
    Release(String),
    RollbackTo(String),
    ResetAll,
    Show(String),
    Declare {
        name: String,
        binary: bool,
        hold: bool,
        query: String,
    },
    Fetch {
        name: String,
        /// Rows; all there are if `None`.
        count: Option<u64>,
        /// Only moves on.
        silent: bool,
    },
    /// Closes a cursor, or all.
    Close(Option<String>),
    Copy {
        query: String,
        options: CopyOptions,
    },
    DiscardAll,
    /// Forgets a prepared statement, or all.
    Deallocate(Option<String>),
}

/// How `COPY` writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopyOptions {
    pub(crate) format: CopyFormat,
    pub(crate) header: bool,
    pub(crate) delimiter: u8,
    pub(crate) null: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyFormat {
    Text,
    Csv,
    Binary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Quoted,
    Text,
    Sign,
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    start: usize,
    end: usize,
}

impl Token<'_> {
    fn is(&self, word: &str) -> bool {
        self.kind != Kind::Quoted && self.kind != Kind::Text && self.text.eq_ignore_ascii_case(word)
    }

    /// The name that an identifier stands for.
    fn name(&self) -> String {
        match self.kind {
            Kind::Quoted => self.text[1..self.text.len() - 1].replace("\"\"", "\""),
            _ => self.text.to_lowercase(),
        }
    }

    /// The text of a literal, or the word itself.
    fn value(&self) -> String {
        match self.kind {
            Kind::Text => {
                let inner = self.text.find('\'').map_or("", |quote| &self.text[quote + 1..self.text.len() - 1]);
                inner.replace("''", "'")
            }
            Kind::Quoted => self.name(),
            _ => self.text.to_owned(),
        }
    }
}

/// Reads tokens; what has no end is one to the end.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip();
        let bytes = self.text.as_bytes();
        let start = self.at;
        let first = *bytes.get(start)?;
        let (kind, end) = match first {
            b'\'' => self.quoted(Kind::Text, start, b'\'', false),
            b'"' => self.quoted(Kind::Quoted, start, b'"', false),
            b'e' | b'E' if bytes.get(start + 1) == Some(&b'\'') => self.quoted(Kind::Text, start + 1, b'\'', true),
            b'$' => match self.dollar(start) {
                Some(end) => (Kind::Sign, end),
                None => (Kind::Sign, start + 1),
            },
            byte if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 => {
                let rest = &bytes[start..];
                let length = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"_$.".contains(byte) || *byte >= 0x80));
                (Kind::Word, start + length.unwrap_or(rest.len()))
            }
            _ => (Kind::Sign, start + 1),
        };
        self.at = end;
        Some(Token { kind, text: &self.text[start..end], start, end })
    }
}

impl Tokens<'_> {
    /// Passes over blanks and comments.
    fn skip(&mut self) {
        let bytes = self.text.as_bytes();
        loop {
            match (bytes.get(self.at), bytes.get(self.at + 1)) {
                (Some(byte), _) if byte.is_ascii_whitespace() => self.at += 1,
                (Some(b'-'), Some(b'-')) => {
                    self.at = bytes[self.at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| self.at + length);
                }
                (Some(b'/'), Some(b'*')) => {
                    let mut depth = 1;
                    self.at += 2;
                    while depth > 0 && self.at < bytes.len() {
                        match (bytes[self.at], bytes.get(self.at + 1)) {
                            (b'/', Some(b'*')) => (depth, self.at) = (depth + 1, self.at + 2),
                            (b'*', Some(b'/')) => (depth, self.at) = (depth - 1, self.at + 2),
                            _ => self.at += 1,
                        }
                    }
                }
                _ => return,
            }
        }
    }

    /// What stands in quotes, and its end. What is never closed cannot be taken apart: the parser will say so.
    fn quoted(&self, kind: Kind, open: usize, quote: u8, escapes: bool) -> (Kind, usize) {
        let bytes = self.text.as_bytes();
        let mut at = open + 1;
        while at < bytes.len() {
            match bytes[at] {
                b'\\' if escapes => at += 2,
                byte if byte == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
                byte if byte == quote => return (kind, at + 1),
                _ => at += 1,
            }
        }
        (Kind::Sign, bytes.len())
    }

    /// The end of a text between `$tag$` and `$tag$`.
    fn dollar(&self, start: usize) -> Option<usize> {
        let rest = &self.text[start + 1..];
        let tag = &rest[..rest.find('$')?];
        let is_tag = tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80);
        if !is_tag || tag.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let mark = format!("${tag}$");
        let body = start + mark.len();
        Some(self.text[body..].find(&mark).map_or(self.text.len(), |length| body + length + mark.len()))
    }
}

fn tokens(text: &str) -> Tokens<'_> {
    Tokens { text, at: 0 }
}

/// The statements of a text.
pub(crate) fn split(text: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let (mut start, mut is_empty) = (0, true);
    for token in tokens(text) {
        if token.kind == Kind::Sign && token.text == ";" {
            if !is_empty {
                statements.push(text[start..token.start].trim());
            }
            (start, is_empty) = (token.end, true);
        } else {
            is_empty = false;
        }
    }
    if !is_empty {
        statements.push(text[start..].trim());
    }
    statements
}

/// What a statement asks for.
pub(crate) fn command(text: &str) -> Result<Command, Refusal> {
    // No statement of a session is longer, but for the query in it.
    let words: Vec<Token<'_>> = tokens(text).take(64).collect();
    let Some(first) = words.first() else { return Ok(Command::Empty) };
    let word = |index: usize| words.get(index);
    let is = |index: usize, name: &str| word(index).is_some_and(|token| token.is(name));
    Ok(match first.text.to_ascii_lowercase().as_str() {
        "select" | "with" | "values" | "table" | "explain" | "describe" | "desc" | "(" => Command::Query,
        "begin" => Command::Begin,
        "start" if is(1, "transaction") => Command::Begin,
        "prepare" if is(1, "transaction") => return Err(writes("PREPARE TRANSACTION")),
        "commit" | "end" if !is(1, "prepared") => Command::Commit,
        "rollback" if words.iter().any(|token| token.is("to")) => Command::RollbackTo(words.last().ok_or_else(syntax)?.name()),
        "rollback" | "abort" => Command::Rollback,
        "savepoint" => Command::Savepoint(word(1).ok_or_else(syntax)?.name()),
        "release" => Command::Release(words.last().ok_or_else(syntax)?.name()),
        "unlisten" => Command::Nothing("UNLISTEN"),
        "set" => set(text, &words)?,
        "reset" if is(1, "all") => Command::ResetAll,
        "reset" => Command::Set { name: setting_name(&words[1..]).ok_or_else(syntax)?.0, value: None, local: false },
        "show" => show(&words),
        "declare" => declare(text, &words)?,
        "fetch" => fetch(&words, false)?,
        "move" => fetch(&words, true)?,
        "close" if is(1, "all") => Command::Close(None),
        "close" => Command::Close(Some(word(1).ok_or_else(syntax)?.name())),
        "copy" => copy(text)?,
        "discard" if is(1, "all") => Command::DiscardAll,
        "discard" if is(1, "plans") => Command::Nothing("DISCARD PLANS"),
        "discard" if is(1, "sequences") => Command::Nothing("DISCARD SEQUENCES"),
        "discard" if is(1, "temp") || is(1, "temporary") => Command::Nothing("DISCARD TEMP"),
        "deallocate" => {
            let at = if is(1, "prepare") { 2 } else { 1 };
            if is(at, "all") { Command::Deallocate(None) } else { Command::Deallocate(Some(word(at).ok_or_else(syntax)?.name())) }
        }
        "insert" | "update" | "delete" | "merge" | "create" | "alter" | "drop" | "truncate" | "grant" | "revoke" | "comment" | "vacuum"
        | "analyze" | "reindex" | "cluster" | "refresh" | "lock" | "call" | "do" | "import" | "security" | "reassign" | "checkpoint" => {
            return Err(writes(&first.text.to_ascii_uppercase()));
        }
        "listen" | "notify" | "prepare" | "execute" | "load" | "commit" | "end" => {
            return Err(Refusal::new("0A000", format!("{} is not supported", first.text.to_ascii_uppercase())));
        }
        _ => return Err(syntax_at(first.text)),
    })
}

fn writes(what: &str) -> Refusal {
    Refusal::new("25006", format!("cannot execute {what}: everything here is to read only"))
}

fn syntax() -> Refusal {
    Refusal::new("42601", "the statement has no end")
}

fn syntax_at(word: &str) -> Refusal {
    let word: String = word.chars().take(40).collect();
    Refusal::new("42601", format!("syntax error at or near \"{word}\""))
}

/// The name of a setting at the beginning of `words`, and how many words it takes.
fn setting_name(words: &[Token<'_>]) -> Option<(String, usize)> {
    match words {
        [one, two, ..] if one.is("time") && two.is("zone") => Some(("timezone".to_owned(), 2)),
        [one, two, three, ..] if one.is("transaction") && two.is("isolation") && three.is("level") => {
            Some(("transaction_isolation".to_owned(), 3))
        }
        [one, two, ..] if one.is("session") && two.is("authorization") => Some(("session_authorization".to_owned(), 2)),
        [one, dot, two, ..] if dot.text == "." => Some((format!("{}.{}", one.name(), two.name()), 3)),
        [one, ..] => Some((one.name(), 1)),
        [] => None,
    }
}

fn set(text: &str, words: &[Token<'_>]) -> Result<Command, Refusal> {
    let mut rest = &words[1..];
    let local = rest.first().is_some_and(|token| token.is("local"));
    if rest.first().is_some_and(|token| token.is("session") || token.is("local")) {
        // SET SESSION CHARACTERISTICS AS TRANSACTION …, and SET SESSION AUTHORIZATION, are not about a scope.
        match rest.get(1) {
            Some(next) if next.is("characteristics") => return Ok(Command::Nothing("SET")),
            Some(next) if next.is("authorization") => {}
            _ => rest = &rest[1..],
        }
    }
    if rest.first().is_some_and(|token| token.is("transaction")) {
        return if rest.windows(2).any(|pair| pair[0].is("read") && pair[1].is("write")) {
            Err(writes("SET TRANSACTION READ WRITE"))
        } else {
            Ok(Command::Nothing("SET"))
        };
    }
    if rest.first().is_some_and(|token| token.is("role")) {
        return Err(Refusal::new("0A000", "SET ROLE is not supported"));
    }
    if rest.first().is_some_and(|token| token.is("names")) {
        return Ok(Command::Set { name: "client_encoding".to_owned(), value: rest.get(1).map(Token::value), local });
    }
    let (name, length) = setting_name(rest).ok_or_else(syntax)?;
    let mut values = &rest[length..];
    if values.first().is_some_and(|token| token.text == "=" || token.is("to")) {
        values = &values[1..];
    } else if name != "timezone" && name != "session_authorization" {
        return Err(syntax_at(values.first().map_or("", |token| token.text)));
    }
    let value = match values {
        [] => return Err(syntax()),
        [one] if one.is("default") => None,
        [one] => Some(one.value()),
        [first, ..] => Some(text[first.start..].trim().to_owned()),
    };
    Ok(Command::Set { name, value, local })
}

fn show(words: &[Token<'_>]) -> Command {
    let of_engine = ["tables", "columns", "schemas", "databases", "functions", "create", "full"];
    if words.get(1).is_some_and(|word| of_engine.iter().any(|name| word.is(name))) {
        return Command::Query;
    }
    Command::Show(setting_name(&words[1..]).map(|(name, _)| name).unwrap_or_default())
}

fn declare(text: &str, words: &[Token<'_>]) -> Result<Command, Refusal> {
    let name = words.get(1).ok_or_else(syntax)?.name();
    let at = words.iter().position(|token| token.is("for")).ok_or_else(syntax)?;
    let options = &words[2..at.max(2)];
    if options.windows(2).any(|pair| pair[1].is("scroll") && !pair[0].is("no")) || options.first().is_some_and(|token| token.is("scroll")) {
        return Err(Refusal::new("0A000", "a cursor goes forward only"));
    }
    let hold = options.windows(2).any(|pair| pair[0].is("with") && pair[1].is("hold"));
    let binary = options.iter().any(|token| token.is("binary"));
    Ok(Command::Declare { name, binary, hold, query: text[words[at].end..].trim().to_owned() })
}

fn fetch(words: &[Token<'_>], silent: bool) -> Result<Command, Refusal> {
    let backward = || Refusal::new("55000", "a cursor goes forward only").hint("read it with FETCH n, FETCH ALL or FETCH NEXT");
    let last = words.last().filter(|_| words.len() > 1).ok_or_else(syntax)?;
    let mut count = Some(1);
    let middle = &words[1..words.len() - 1];
    let negative = middle.iter().any(|token| token.text == "-");
    for token in middle {
        if token.is("all") {
            count = None;
        } else if let Ok(number) = token.text.parse() {
            count = Some(number);
        } else if ["prior", "first", "last", "absolute", "relative", "backward"].iter().any(|word| token.is(word)) || negative {
            return Err(backward());
        } else if !["next", "forward", "from", "in"].iter().any(|word| token.is(word)) {
            return Err(syntax_at(token.text));
        }
    }
    Ok(Command::Fetch { name: last.name(), count, silent })
}

/// `COPY (query) TO STDOUT …` or `COPY table (columns) TO STDOUT …`.
fn copy(text: &str) -> Result<Command, Refusal> {
    let words: Vec<Token<'_>> = tokens(text).collect();
    let mut depth = 0_usize;
    let mut to = None;
    for (index, token) in words.iter().enumerate() {
        match token.text {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ if depth == 0 && token.is("from") => return Err(writes("COPY FROM")),
            _ if depth == 0 && token.is("to") && to.is_none() => to = Some(index),
            _ => {}
        }
    }
    let to = to.filter(|to| *to > 1).ok_or_else(syntax)?;
    if !words.get(to + 1).is_some_and(|token| token.is("stdout")) {
        return Err(Refusal::new("42501", "COPY writes to STDOUT only").hint("use COPY (query) TO STDOUT, or \\copy in psql"));
    }
    let inner = text[words[0].end..words[to].start].trim();
    let query = if words[1].text == "(" {
        inner.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).ok_or_else(syntax)?.trim().to_owned()
    } else {
        let table_end = words[1..to].iter().position(|token| token.text == "(").map_or(to, |index| index + 1);
        let table = text[words[1].start..words[table_end - 1].end].to_owned();
        let columns = if table_end < to { text[words[table_end].end..words[to - 1].start].trim().to_owned() } else { "*".to_owned() };
        format!("SELECT {columns} FROM {table}")
    };
    if !matches!(command(&query), Ok(Command::Query)) {
        return Err(writes("COPY of a statement that is no query"));
    }
    Ok(Command::Copy { query, options: copy_options(&words[to + 2..])? })
}

fn copy_options(words: &[Token<'_>]) -> Result<CopyOptions, Refusal> {
    let (mut format, mut header, mut delimiter, mut null) = (CopyFormat::Text, false, None, None);
    let mut words = words.iter().filter(|token| !["(", ")", ",", "with", "as"].iter().any(|word| token.is(word))).peekable();
    while let Some(word) = words.next() {
        let name = word.text.to_ascii_lowercase();
        match name.as_str() {
            "format" | "csv" | "binary" | "text" => {
                let name = if name == "format" { words.next().ok_or_else(syntax)?.value().to_ascii_lowercase() } else { name };
                format = match name.as_str() {
                    "text" => CopyFormat::Text,
                    "csv" => CopyFormat::Csv,
                    "binary" => CopyFormat::Binary,
                    other => return Err(Refusal::new("22023", format!("COPY format \"{other}\" is not known"))),
                };
            }
            "header" => {
                header = true;
                if let Some(given) = words.next_if(|token| ["true", "false", "on", "off", "1", "0"].contains(&token.value().as_str())) {
                    header = ["true", "on", "1"].contains(&given.value().as_str());
                }
            }
            "delimiter" => {
                let text = words.next().ok_or_else(syntax)?.value().replace("\\t", "\t");
                match text.as_bytes() {
                    [byte] if !b"\\\r\n\"".contains(byte) => delimiter = Some(*byte),
                    _ => return Err(Refusal::new("0A000", "the delimiter of COPY must be a single character of one byte")),
                }
            }
            "null" => null = Some(words.next().ok_or_else(syntax)?.value()),
            "encoding" => {
                let encoding = words.next().ok_or_else(syntax)?.value().to_ascii_lowercase();
                if !["utf8", "utf-8"].contains(&encoding.as_str()) {
                    return Err(Refusal::new("0A000", "the encoding is UTF8"));
                }
            }
            other => return Err(Refusal::new("0A000", format!("COPY option \"{other}\" is not supported"))),
        }
    }
    let delimiter = delimiter.unwrap_or(if format == CopyFormat::Csv { b',' } else { b'\t' });
    let null = null.unwrap_or_else(|| if format == CopyFormat::Csv { String::new() } else { "\\N".to_owned() });
    Ok(CopyOptions { format, header, delimiter, null })
}

/// A duration as `statement_timeout` takes it: milliseconds, or a number with a unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let milliseconds = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_split_at_semicolons_that_are_its_own() {
        let text = "select ';' -- a;\n; /* ; /* ; */ */ select \";\", $x$ ; $x$, e'\\';';; ;begin";
        assert_eq!(split(text), ["select ';' -- a;", "/* ; /* ; */ */ select \";\", $x$ ; $x$, e'\\';'", "begin"]);
        assert!(split(" -- nothing\n;").is_empty());
        // Whatever it is, it is read to its end.
        for text in ["'", "\"", "e'\\", "$", "$$", "$a$ b", "/*", "--", "é'", "$1;$2", "E"] {
            split(text);
            let _ = command(text);
        }
    }

    #[test]
    fn statements_are_told_by_their_first_words() {
        let set = |name: &str, value: Option<&str>| Command::Set { name: name.to_owned(), value: value.map(str::to_owned), local: false };
        for (text, expected) in [
            ("/* hello */ SELECT 1", Command::Query),
            ("(select 1) union (select 2)", Command::Query),
            ("START TRANSACTION READ ONLY", Command::Begin),
            ("END", Command::Commit),
            ("ROLLBACK TO SAVEPOINT a", Command::RollbackTo("a".to_owned())),
            ("savepoint \"A b\"", Command::Savepoint("A b".to_owned())),
            ("release a", Command::Release("a".to_owned())),
            ("discard temp", Command::Nothing("DISCARD TEMP")),
            ("DISCARD ALL", Command::DiscardAll),
            ("set logweir.as_of = '2026-11-20T10:00:00Z'", set("logweir.as_of", Some("2026-11-20T10:00:00Z"))),
            ("SET SESSION search_path TO shop, public", set("search_path", Some("shop, public"))),
            ("SET extra_float_digits = 3", set("extra_float_digits", Some("3"))),
            ("SET TIME ZONE 'UTC'", set("timezone", Some("UTC"))),
            ("set names 'utf8'", set("client_encoding", Some("utf8"))),
            ("SET a TO DEFAULT", set("a", None)),
            ("RESET logweir.as_of", set("logweir.as_of", None)),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Command::Nothing("SET")),
            ("SHOW TABLES", Command::Query),
            ("show transaction isolation level", Command::Show("transaction_isolation".to_owned())),
            ("CLOSE ALL", Command::Close(None)),
            ("DEALLOCATE PREPARE a", Command::Deallocate(Some("a".to_owned()))),
        ] {
            assert_eq!(command(text).unwrap(), expected, "{text}");
        }
        let cursor = command("DECLARE \"My c\" NO SCROLL CURSOR WITH HOLD FOR SELECT 1").unwrap();
        assert_eq!(cursor, Command::Declare { name: "My c".to_owned(), binary: false, hold: true, query: "SELECT 1".to_owned() });
        let fetch = |count| Command::Fetch { name: "c".to_owned(), count, silent: false };
        assert_eq!(command("FETCH FORWARD 10 FROM c").unwrap(), fetch(Some(10)));
        assert_eq!(command("FETCH ALL IN C").unwrap(), fetch(None));
        assert_eq!(command("FETCH c").unwrap(), fetch(Some(1)));
        for (text, code) in [
            ("INSERT INTO a VALUES (1)", "25006"),
            ("DROP TABLE a", "25006"),
            ("SET TRANSACTION READ WRITE", "25006"),
            ("COPY a FROM STDIN", "25006"),
            ("COPY (INSERT INTO a VALUES (1)) TO STDOUT", "25006"),
            ("COPY a TO '/etc/passwd'", "42501"),
            ("COPY a TO PROGRAM 'id'", "42501"),
            ("LISTEN a", "0A000"),
            ("FETCH BACKWARD 1 FROM c", "55000"),
            ("selec 1", "42601"),
        ] {
            assert_eq!(command(text).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn copies_have_options() {
        let copied = |text: &str| match command(text).unwrap() {
            Command::Copy { query, options } => (query, options.format, options.header, options.delimiter),
            other => panic!("{other:?}"),
        };
        assert_eq!(copied("COPY (SELECT 1) TO STDOUT"), ("SELECT 1".to_owned(), CopyFormat::Text, false, b'\t'));
        let (query, ..) = copied("COPY shop.orders (id, total) TO STDOUT WITH CSV HEADER");
        assert_eq!(query, "SELECT id, total FROM shop.orders");
        assert_eq!(
            copied("copy t to stdout (format csv, header true, delimiter ';')"),
            ("SELECT * FROM t".to_owned(), CopyFormat::Csv, true, b';')
        );
        assert_eq!(copied("COPY (SELECT 1) TO STDOUT (FORMAT 'binary')").1, CopyFormat::Binary);
    }
}
