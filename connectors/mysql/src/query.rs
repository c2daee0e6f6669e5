//! QUERY events: what a logged statement means for those who follow rows.
//!
//! Rows come as row images, so a statement matters only where it frames a transaction, changes a table's shape, empties
//! a table, or changes rows although it should not (`binlog_format` other than ROW). That needs the first words and the names
//! of tables, not a parser: a tokenizer that knows quotes and comments, and a few patterns over its tokens. Where
//! those do not see through a statement, it is taken for one that touches everything.

use std::borrow::Cow;

use crate::reader::{Cursor, Truncated};
use crate::value::charset::Charset;

const ANSI_QUOTES: u64 = 1 << 2;
const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;

/// The body of a QUERY event.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    /// The default database; empty for none.
    pub(crate) schema: &'a str,
    pub(crate) text: Cow<'a, str>,
    sql_mode: u64,
}

/// A table as a statement names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableName {
    pub(crate) schema: String,
    pub(crate) table: String,
}

/// What a statement does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    Begin,
    Commit,
    Rollback,
    /// A savepoint of this name is set.
    Savepoint(String),
    /// To the savepoint of this name.
    RollbackTo(String),
    /// A transaction in two phases begins.
    XaStart,
    /// The second phase: commits or undoes what was prepared before.
    XaEnd,
    Truncate(TableName),
    /// Rows are changed by the statement itself; the tables, or none if the statement does not name them.
    Dml(Vec<TableName>),
    /// Shapes are changed: of these tables (of a whole schema where the table is empty), or of any if none is named.
    Ddl(Vec<TableName>),
    /// Shapes are changed, and rows come or go with them that are not logged.
    Unlogged(Unlogged),
    /// Nothing that concerns rows.
    Other,
}

/// What a statement about tables does to their rows without logging it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unlogged {
    /// Whose shapes may have changed, as in [`Statement::Ddl`].
    pub(crate) names: Vec<TableName>,
    /// Names under which none of the rows are left (all of a schema where the table is empty).
    pub(crate) emptied: Vec<TableName>,
    /// Tables that got rows, or lost some of theirs.
    pub(crate) changed: Vec<TableName>,
}

impl<'a> Query<'a> {
    /// Reads a body; `compressed` is MariaDB's form of it. `extra` bytes stand behind the post-header (EXECUTE_LOAD_QUERY).
    pub(crate) fn parse(body: &'a [u8], extra: usize) -> Result<Self, Truncated> {
        let (head, text) = Query::split(body, extra)?;
        Ok(Query { text: head.text(text), schema: head.schema, sql_mode: head.sql_mode })
    }

    /// Splits a body into what stands before the statement, and the bytes of the statement (compressed or not).
    pub(crate) fn split(body: &'a [u8], extra: usize) -> Result<(QueryHead<'a>, &'a [u8]), Truncated> {
        let mut cursor = Cursor::new(body);
        cursor.skip(8)?;
        let schema_len = usize::from(cursor.u8()?);
        cursor.skip(2)?;
        let variables_len = usize::from(cursor.u16()?);
        cursor.skip(extra)?;
        let (sql_mode, charset) = variables(cursor.take(variables_len)?);
        let schema = std::str::from_utf8(cursor.take(schema_len)?).map_err(|_| Truncated)?;
        cursor.skip(1)?;
        Ok((QueryHead { schema, sql_mode, charset }, cursor.rest()))
    }
}

/// What stands before the statement of a QUERY event.
#[derive(Debug)]
pub(crate) struct QueryHead<'a> {
    schema: &'a str,
    sql_mode: u64,
    charset: Option<Charset>,
}

impl<'a> QueryHead<'a> {
    fn text(&self, bytes: &'a [u8]) -> Cow<'a, str> {
        let mut scratch = String::new();
        match self.charset.map(|charset| charset.decode(bytes, &mut scratch).map(str::len)) {
            Some(Ok(_)) if !scratch.is_empty() => Cow::Owned(scratch),
            // UTF-8 already, or not what it says it is: literals may be anything, and only names matter here.
            _ => String::from_utf8_lossy(bytes),
        }
    }

    /// The query with a statement that was decompressed.
    pub(crate) fn with_text(self, bytes: &'a [u8]) -> Query<'a> {
        Query { text: self.text(bytes), schema: self.schema, sql_mode: self.sql_mode }
    }
}

/// The SQL mode and the client's character set among the status variables. Others before them have known lengths; those
/// behind do not matter.
fn variables(bytes: &[u8]) -> (u64, Option<Charset>) {
    let (mut sql_mode, mut charset) = (0, None);
    let mut cursor = Cursor::new(bytes);
    let mut read = || -> Result<bool, Truncated> {
        match cursor.u8()? {
            0 => cursor.skip(4)?,
            1 => sql_mode = cursor.u64()?,
            2 => {
                let length = usize::from(cursor.u8()?);
                cursor.skip(length + 1)?;
            }
            3 => cursor.skip(4)?,
            4 => {
                charset = Charset::from_collation(cursor.u16()?);
                cursor.skip(4)?;
            }
            5 | 6 => {
                let length = usize::from(cursor.u8()?);
                cursor.skip(length)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    };
    while let Ok(true) = read() {}
    (sql_mode, charset)
}

#[derive(Debug, Clone, PartialEq)]
enum Token<'a> {
    /// A keyword, or a name without quotes.
    Word(&'a str),
    /// A name in quotes.
    Name(String),
    Symbol(char),
    /// A string or number.
    Literal,
}

impl Token<'_> {
    fn is(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn name(&self) -> Option<String> {
        match self {
            Token::Word(word) => Some((*word).to_owned()),
            Token::Name(name) => Some(name.clone()),
            _ => None,
        }
    }
}

struct Tokens<'a> {
    text: &'a str,
    ansi_quotes: bool,
    backslashes: bool,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blank();
        let first = self.text.chars().next()?;
        match first {
            '`' => Some(Token::Name(self.quoted('`', false))),
            '"' if self.ansi_quotes => Some(Token::Name(self.quoted('"', false))),
            '\'' | '"' => {
                self.quoted(first, self.backslashes);
                Some(Token::Literal)
            }
            _ if is_word(first) => {
                let end = self.text.find(|c| !is_word(c)).unwrap_or(self.text.len());
                let word = self.advance(end);
                Some(if word.bytes().all(|byte| byte.is_ascii_digit()) { Token::Literal } else { Token::Word(word) })
            }
            _ => {
                self.advance(first.len_utf8());
                Some(Token::Symbol(first))
            }
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '@') || !c.is_ascii()
}

impl<'a> Tokens<'a> {
    fn advance(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.text.split_at(length);
        self.text = rest;
        taken
    }

    /// Blanks and comments. The content of a comment that a server executes is not skipped, only its brackets are.
    fn skip_blank(&mut self) {
        loop {
            self.text = self.text.trim_start();
            if let Some(rest) = self.text.strip_prefix("/*") {
                if let Some(executed) = rest.strip_prefix('!').or_else(|| rest.strip_prefix("M!")) {
                    self.text = executed.trim_start_matches(|c: char| c.is_ascii_digit());
                } else {
                    self.text = rest.split_once("*/").map_or("", |(_, after)| after);
                }
            } else if let Some(rest) = self.text.strip_prefix("*/") {
                self.text = rest;
            } else if self.text.starts_with('#') || is_line_comment(self.text) {
                self.text = self.text.split_once('\n').map_or("", |(_, after)| after);
            } else {
                return;
            }
        }
    }

    fn quoted(&mut self, quote: char, backslashes: bool) -> String {
        let mut name = String::new();
        let mut rest = self.text.chars();
        rest.next();
        while let Some(c) = rest.next() {
            if c == quote {
                if !rest.as_str().starts_with(quote) {
                    break;
                }
                rest.next();
            } else if c == '\\' && backslashes {
                rest.next();
                continue;
            }
            name.push(c);
        }
        self.text = rest.as_str();
        name
    }
}

fn is_line_comment(text: &str) -> bool {
    text.strip_prefix("--").is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| c.is_whitespace() || c.is_control()))
}

impl Query<'_> {
    fn tokens(&self) -> Tokens<'_> {
        Tokens { text: &self.text, ansi_quotes: self.sql_mode & ANSI_QUOTES != 0, backslashes: self.sql_mode & NO_BACKSLASH_ESCAPES == 0 }
    }

    /// What the statement does.
    pub(crate) fn statement(&self) -> Statement {
        let mut tokens = self.tokens();
        let Some(Token::Word(first)) = tokens.next() else { return Statement::Other };
        match first.to_ascii_uppercase().as_str() {
            "BEGIN" => Statement::Begin,
            "START" if tokens.next().is_some_and(|token| token.is("TRANSACTION")) => Statement::Begin,
            "COMMIT" => Statement::Commit,
            "SAVEPOINT" => tokens.next().and_then(|token| token.name()).map_or(Statement::Other, Statement::Savepoint),
            "ROLLBACK" if tokens.any(|token| token.is("TO")) => {
                Statement::RollbackTo(tokens.find(|token| !token.is("SAVEPOINT")).and_then(|token| token.name()).unwrap_or_default())
            }
            "ROLLBACK" => Statement::Rollback,
            "XA" => match tokens.next() {
                Some(token) if token.is("START") || token.is("BEGIN") => Statement::XaStart,
                Some(token) if token.is("COMMIT") || token.is("ROLLBACK") => Statement::XaEnd,
                _ => Statement::Other,
            },
            "TRUNCATE" => self.truncate(tokens),
            "INSERT" | "REPLACE" => Statement::Dml(
                self.first_name(tokens, &["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"]).into_iter().collect(),
            ),
            "UPDATE" => Statement::Dml(self.names(tokens.take_while(|token| !token.is("SET")))),
            "DELETE" => Statement::Dml(self.names(tokens.take_while(|token| !token.is("WHERE")))),
            "LOAD" => {
                Statement::Dml(self.first_name(tokens.skip_while(|token| !token.is("INTO")), &["INTO", "TABLE"]).into_iter().collect())
            }
            "WITH" | "SELECT" | "DO" | "CALL" | "MERGE" | "EXECUTE" | "HANDLER" => Statement::Dml(Vec::new()),
            "CREATE" | "ALTER" | "DROP" | "RENAME" => self.ddl(first, tokens),
            _ => Statement::Other,
        }
    }

    fn truncate(&self, tokens: Tokens<'_>) -> Statement {
        match self.first_name(tokens, &["TABLE"]) {
            Some(name) => Statement::Truncate(name),
            None => Statement::Other,
        }
    }

    fn ddl(&self, first: &str, tokens: Tokens<'_>) -> Statement {
        let tokens: Vec<Token<'_>> = tokens.collect();
        // What kind of thing it is stands among the first words, behind OR REPLACE, UNIQUE, DEFINER = … and the like.
        let kind = tokens.iter().find_map(|token| match token {
            Token::Word(word) => {
                let word = word.to_ascii_uppercase();
                KINDS.into_iter().find(|known| **known == word)
            }
            _ => None,
        });
        match kind {
            Some("TABLE" | "TABLES" | "INDEX") => {
                let names = self.names(tokens.iter().cloned());
                let selects = first.eq_ignore_ascii_case("CREATE")
                    && kind == Some("TABLE")
                    && tokens.iter().any(|token| token.is("SELECT"))
                    // What a server logs under ROW: the empty table, and then its rows.
                    && !tokens.windows(2).any(|pair| pair[0].is("START") && pair[1].is("TRANSACTION"));
                if selects {
                    return Statement::Dml(names.into_iter().take(1).collect());
                }
                let unlogged = if kind == Some("INDEX") { Unlogged::default() } else { self.unlogged(first, &tokens) };
                match unlogged {
                    Unlogged { emptied, changed, .. } if emptied.is_empty() && changed.is_empty() => Statement::Ddl(names),
                    unlogged => Statement::Unlogged(Unlogged { names, ..unlogged }),
                }
            }
            Some("DATABASE" | "SCHEMA") if first.eq_ignore_ascii_case("DROP") => {
                let behind = tokens.iter().skip_while(|token| !token.is("DATABASE") && !token.is("SCHEMA")).skip(1);
                let schema = behind.filter(|token| !token.is("IF") && !token.is("EXISTS")).find_map(Token::name);
                let names: Vec<_> = schema.map(|schema| TableName { schema, table: String::new() }).into_iter().collect();
                Statement::Unlogged(Unlogged { emptied: names.clone(), names, changed: Vec::new() })
            }
            // A view, a routine, an account, a new schema: no rows, and no shape of a table.
            Some(_) => Statement::Other,
            None => Statement::Ddl(Vec::new()),
        }
    }

    /// What becomes of the rows of the tables that a DDL statement is about; `tokens` are behind its first word.
    fn unlogged(&self, first: &str, tokens: &[Token<'_>]) -> Unlogged {
        let mut unlogged = Unlogged::default();
        let Some(at) = tokens.iter().position(|token| token.is("TABLE") || token.is("TABLES")) else { return unlogged };
        let (before, mut rest) = tokens.split_at(at + 1);
        // Rows of temporary tables are never logged.
        if before.iter().any(|token| token.is("TEMPORARY")) {
            return unlogged;
        }
        while let [token, behind @ ..] = rest
            && ["IF", "NOT", "EXISTS"].iter().any(|keyword| token.is(keyword))
        {
            rest = behind;
        }
        match first.to_ascii_uppercase().as_str() {
            "DROP" => {
                while let Some(name) = self.take_name(&mut rest) {
                    unlogged.emptied.push(name);
                    if !take_comma(&mut rest) {
                        break;
                    }
                }
            }
            "CREATE" if before.iter().any(|token| token.is("REPLACE")) => unlogged.emptied.extend(self.take_name(&mut rest)),
            "RENAME" => {
                while self.take_name(&mut rest).is_some() {
                    let Some(to) = rest.iter().position(|token| token.is("TO")) else { break };
                    rest = rest.get(to + 1..).unwrap_or_default();
                    let Some(new) = self.take_name(&mut rest) else { break };
                    unlogged.rename(new);
                    if !take_comma(&mut rest) {
                        break;
                    }
                }
            }
            "ALTER" => {
                if let Some(table) = self.take_name(&mut rest) {
                    self.altered(table, rest, &mut unlogged);
                }
            }
            _ => {}
        }
        unlogged
    }

    /// What the actions of ALTER TABLE do to rows.
    fn altered(&self, table: TableName, actions: &[Token<'_>], unlogged: &mut Unlogged) {
        for (i, pair) in actions.windows(2).enumerate() {
            let [action, object] = pair else { continue };
            let mut rest = actions.get(i + 1..).unwrap_or_default();
            if action.is("RENAME") && !["COLUMN", "INDEX", "KEY"].iter().any(|keyword| object.is(keyword)) {
                if object.is("TO") || object.is("AS") || *object == Token::Symbol('=') {
                    rest = rest.get(1..).unwrap_or_default();
                }
                if let Some(new) = self.take_name(&mut rest) {
                    unlogged.rename(new);
                }
            }
            let is_action = |keywords: &[&str]| keywords.iter().any(|keyword| action.is(keyword));
            let of_partition = object.is("PARTITION") && is_action(&["DROP", "TRUNCATE", "EXCHANGE", "CONVERT", "DISCARD", "IMPORT"]);
            let of_files = object.is("TABLESPACE") && is_action(&["DISCARD", "IMPORT"]);
            let converts = object.is("TABLE") && action.is("CONVERT");
            if of_partition || of_files || converts {
                unlogged.changed.push(table.clone());
                // The table that the rows are exchanged with.
                if let Some(at) = rest.iter().position(|token| token.is("TABLE")) {
                    let mut rest = rest.get(at + 1..).unwrap_or_default();
                    unlogged.changed.extend(self.take_name(&mut rest));
                }
            }
        }
    }

    /// Takes a name, with what stands before its dot.
    fn take_name(&self, tokens: &mut &[Token<'_>]) -> Option<TableName> {
        let (first, rest) = tokens.split_first()?;
        let table = first.name()?;
        *tokens = rest;
        if let [Token::Symbol('.'), second, rest @ ..] = rest {
            *tokens = rest;
            return Some(TableName { schema: table, table: second.name()? });
        }
        Some(TableName { schema: self.schema.to_owned(), table })
    }

    /// The first name behind any of `before`.
    fn first_name<'t>(&self, tokens: impl Iterator<Item = Token<'t>>, before: &[&str]) -> Option<TableName> {
        let mut tokens = tokens.skip_while(|token| before.iter().any(|keyword| token.is(keyword)));
        let name = tokens.next()?.name()?;
        if tokens.next() == Some(Token::Symbol('.')) {
            return Some(TableName { schema: name, table: tokens.next()?.name()? });
        }
        Some(TableName { schema: self.schema.to_owned(), table: name })
    }

    /// Everything that may be the name of a table: each name, with what stands before the dot, else the default database.
    fn names<'t>(&self, tokens: impl Iterator<Item = Token<'t>>) -> Vec<TableName> {
        let mut names = Vec::new();
        let mut tokens = tokens.peekable();
        while let Some(token) = tokens.next() {
            let Some(mut table) = token.name() else { continue };
            // In quotes, or behind a schema, a word is a name whatever it says.
            let mut keyword = matches!(&token, Token::Word(word) if is_keyword(word));
            let mut schema = self.schema.to_owned();
            while tokens.next_if(|token| *token == Token::Symbol('.')).is_some() {
                let Some(next) = tokens.next().and_then(|token| token.name()) else { break };
                schema = std::mem::replace(&mut table, next);
                keyword = false;
            }
            if !keyword {
                names.push(TableName { schema, table });
            }
        }
        names
    }
}

impl Unlogged {
    /// Nothing is emptied: a table that is swapped for its copy (gh-ost, pt-online-schema-change) holds the same rows
    /// under the name afterwards, and of a table that is gone under its old name nobody asks.
    fn rename(&mut self, new: TableName) {
        self.changed.push(new);
    }
}

fn take_comma(tokens: &mut &[Token<'_>]) -> bool {
    let Some((Token::Symbol(','), rest)) = tokens.split_first() else { return false };
    *tokens = rest;
    true
}

/// What a DDL statement can be about.
const KINDS: [&str; 19] = [
    "TABLE",
    "TABLES",
    "INDEX",
    "DATABASE",
    "SCHEMA",
    "VIEW",
    "PROCEDURE",
    "FUNCTION",
    "TRIGGER",
    "EVENT",
    "USER",
    "ROLE",
    "SERVER",
    "SEQUENCE",
    "TABLESPACE",
    "INSTANCE",
    "PACKAGE",
    "LOGFILE",
    "RESOURCE",
];

/// Words of statements over tables that are never meant as the name of one without quotes.
fn is_keyword(word: &str) -> bool {
    const KEYWORDS: [&str; 17] = [
        "TABLE", "TABLES", "INDEX", "IF", "NOT", "EXISTS", "ALTER", "ADD", "COLUMN", "FROM", "TO", "ON", "USING", "IGNORE", "INTO", "AS",
        "JOIN",
    ];
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn query<'a>(schema: &'a str, text: &'a str, sql_mode: u64) -> Query<'a> {
        Query { schema, text: Cow::Borrowed(text), sql_mode }
    }

    fn name(schema: &str, table: &str) -> TableName {
        TableName { schema: schema.into(), table: table.into() }
    }

    #[test]
    fn statements() {
        use Statement::*;
        for (text, expected) in [
            ("BEGIN", Begin),
            ("  /* x */ start  transaction", Begin),
            ("COMMIT", Commit),
            ("ROLLBACK", Rollback),
            ("ROLLBACK TO `a`", RollbackTo("a".into())),
            ("rollback work to savepoint a", RollbackTo("a".into())),
            ("SAVEPOINT `a`", Savepoint("a".into())),
            ("XA START X'61',X'',1", XaStart),
            ("XA COMMIT X'61',X'',1", XaEnd),
            ("TRUNCATE t", Truncate(name("d", "t"))),
            ("truncate /* a */ table `e`.`t``x` -- b", Truncate(name("e", "t`x"))),
            ("/*!50000 TRUNCATE */ TABLE t", Truncate(name("d", "t"))),
            ("# a\nTRUNCATE TABLE e . t /* generated by server */", Truncate(name("e", "t"))),
            ("TRUNCATE 'x'", Other),
            ("INSERT INTO t VALUES (1)", Dml(vec![name("d", "t")])),
            ("insert ignore into e.t select * from u", Dml(vec![name("e", "t")])),
            ("REPLACE t SET a = 1", Dml(vec![name("d", "t")])),
            ("UPDATE t, e.u SET a = 1", Dml(vec![name("d", "t"), name("e", "u")])),
            ("DELETE FROM t WHERE a = 1", Dml(vec![name("d", "t")])),
            ("LOAD DATA LOCAL INFILE 'x' INTO TABLE `t` (a)", Dml(vec![name("d", "t")])),
            ("CREATE TABLE t AS SELECT 1", Dml(vec![name("d", "t")])),
            (
                "CREATE TABLE `t` (`a` int) START TRANSACTION",
                Ddl(vec![name("d", "t"), name("d", "a"), name("d", "int"), name("d", "START"), name("d", "TRANSACTION")]),
            ),
            ("DROP TEMPORARY TABLE IF EXISTS `t`", Ddl(vec![name("d", "TEMPORARY"), name("d", "t")])),
            ("DROP INDEX i ON t", Ddl(vec![name("d", "i"), name("d", "t")])),
            ("ALTER TABLE t RENAME COLUMN a TO b", Ddl(["t", "RENAME", "a", "b"].map(|table| name("d", table)).into())),
            ("ALTER TABLE `index` FORCE", Ddl(vec![name("d", "index"), name("d", "FORCE")])),
            ("ALTER TABLE e.column FORCE", Ddl(vec![name("e", "column"), name("d", "FORCE")])),
            ("UPDATE `from` JOIN `e`.`to` SET a = 1", Dml(vec![name("d", "from"), name("e", "to")])),
            ("CREATE DATABASE e", Other),
            ("DROP ROLE r", Other),
            ("ALTER SOMETHING new", Ddl(vec![])),
            ("CREATE OR REPLACE VIEW v AS SELECT 1", Other),
            ("GRANT SELECT ON *.* TO x", Other),
            ("-- nothing", Other),
            ("", Other),
        ] {
            assert_eq!(query("d", text, 0).statement(), expected, "{text}");
        }
    }

    #[test]
    fn rows_that_go_unlogged() {
        for (text, emptied, changed) in [
            ("DROP TABLE IF EXISTS `t`, e.`drop` /* generated by server */", &["d.t", "e.drop"][..], &[][..]),
            ("DROP TABLES t, u CASCADE", &["d.t", "d.u"], &[]),
            ("DROP TABLE t WAIT 10", &["d.t"], &[]),
            ("DROP DATABASE IF EXISTS `e`", &["e."], &[]),
            ("CREATE OR REPLACE TABLE `t` (`a` int)", &["d.t"], &[]),
            ("RENAME TABLE a TO e.b", &[], &["e.b"]),
            ("RENAME TABLE IF EXISTS t NOWAIT TO `_t`, g TO t", &[], &["d._t", "d.t"]),
            ("ALTER TABLE t ADD COLUMN c INT, RENAME TO e.u", &[], &["e.u"]),
            ("ALTER TABLE t RENAME u", &[], &["d.u"]),
            ("ALTER TABLE t DROP PARTITION p", &[], &["d.t"]),
            ("ALTER TABLE t TRUNCATE PARTITION p", &[], &["d.t"]),
            ("ALTER TABLE t EXCHANGE PARTITION p WITH TABLE e.u", &[], &["d.t", "e.u"]),
            ("ALTER TABLE t IMPORT TABLESPACE", &[], &["d.t"]),
        ] {
            let Statement::Unlogged(unlogged) = query("d", text, 0).statement() else { panic!("{text}") };
            let shown = |names: &[TableName]| names.iter().map(|name| format!("{}.{}", name.schema, name.table)).collect::<Vec<_>>();
            assert_eq!((shown(&unlogged.emptied), shown(&unlogged.changed)), (shown_of(emptied), shown_of(changed)), "{text}");
            assert!(unlogged.emptied.iter().all(|name| unlogged.names.contains(name)), "{text}");
        }
        for text in [
            "CREATE OR REPLACE TEMPORARY TABLE t (a INT)",
            "DROP /*!40005 TEMPORARY */ TABLE t",
            "CREATE TABLE t (a INT)",
            "ALTER TABLE t ADD PARTITION (PARTITION p VALUES LESS THAN (9)), RENAME INDEX a TO b",
        ] {
            assert!(matches!(query("d", text, 0).statement(), Statement::Ddl(_)), "{text}");
        }
    }

    fn shown_of(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn quotes_depend_on_the_sql_mode() {
        assert_eq!(query("d", "TRUNCATE \"t\"", ANSI_QUOTES).statement(), Statement::Truncate(name("d", "t")));
        assert_eq!(query("d", "TRUNCATE \"t\"", 0).statement(), Statement::Other);
        // Without escapes the string ends at the second quote.
        let text = r"DELETE FROM t USING t JOIN u ON a = 'x\' OR b = 'WHERE'";
        assert!(matches!(query("d", text, NO_BACKSLASH_ESCAPES).statement(), Statement::Dml(names) if names.contains(&name("d", "u"))));
    }

    #[test]
    fn a_body_of_mysql() {
        let mut body = vec![10, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0x1d, 0];
        let mut variables = vec![0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 0, 0, 0, 6, 3];
        variables.extend(b"std");
        variables.extend([4, 8, 0, 8, 0, 8, 0, 0x12, 0xff, 0]);
        body[11] = variables.len() as u8;
        body.extend(variables);
        body.extend(b"types\0TRUNCATE \"\xe4\"");
        let query = Query::parse(&body, 0).unwrap();
        assert_eq!(query.statement(), Statement::Truncate(name("types", "ä")));
        for length in 0..30 {
            let _ = Query::parse(&body[..length], 0);
        }
    }
}
