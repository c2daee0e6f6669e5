//! A rule of the configuration, and its SQL as far as it can be judged without a table.
//!
//! One `SELECT` over the changed table, which says of each row what becomes of it. What looks at more than one row (groups,
//! windows, orders, limits) has no meaning on a stream of changes: a sum would have to be taken back when a row changes.

use datafusion::common::DataFusionError;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, GroupByExpr, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectFlavor, SelectItem, SetExpr,
    Spanned, Statement as SqlStatement, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer};
use logweir_core::Pattern;

use super::depth::{WORDS_MAX, not_too_deep};
use super::functions::Functions;
use super::problem::Fault;
use super::spelling::as_meant;

/// What the changes of a table become.
#[derive(Debug, Clone)]
pub struct SqlRule {
    /// A pattern over `schema.table`. Every rule that fits a table holds, each for a target of its own.
    pub table: Pattern,
    /// A `SELECT` over the table, by its own name or as `source`.
    pub sql: String,
    /// The target, `schema.table` with `{schema}` and `{table}` for those of the source; the table's own name when left out.
    pub into: Option<String>,
    /// The columns of the target that identify a row; what the source's key becomes when left out. Must hold these.
    pub key: Vec<String>,
    /// What becomes of a value that the log left out and nobody downstream has.
    pub unresolved: Unresolved,
    /// What happens when a table's schema changes so that the rule no longer fits.
    pub schema_change: SchemaChange,
    /// What happens when a table is emptied whose target holds rows of other tables, too.
    pub shared_truncate: SharedTruncate,
}

impl SqlRule {
    /// A rule with the defaults.
    pub fn new(table: Pattern, sql: impl Into<String>) -> Self {
        SqlRule {
            table,
            sql: sql.into(),
            into: None,
            key: Vec::new(),
            unresolved: Unresolved::default(),
            schema_change: SchemaChange::default(),
            shared_truncate: SharedTruncate::default(),
        }
    }
}

/// What becomes of a value that the source's log left out because it did not change, where the row may be new to the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unresolved {
    /// The row is a bad value: the stream stops, or the row is quarantined.
    #[default]
    Fail,
    /// It is marked as unchanged, as in a table without a filter: a reader that has no earlier row finds nothing.
    Keep,
}

/// What happens when a rule no longer fits its table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SchemaChange {
    /// The stream stops.
    #[default]
    Fail,
    /// Columns that are gone are NULL, of the type that they had.
    Null,
}

/// What happens when a table is emptied whose target holds rows of other tables, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SharedTruncate {
    /// The stream stops.
    #[default]
    Fail,
    /// The rows stay in the target, and the log says so.
    Ignore,
}

/// The SQL of a rule, parsed.
#[derive(Debug, Clone)]
pub(super) struct Parsed {
    /// The name that the table goes by.
    pub(super) table: TableName,
    pub(super) projection: Vec<SelectItem>,
    pub(super) selection: Option<SqlExpr>,
    pub(super) joins: Vec<ParsedJoin>,
}

/// A table in `FROM`.
#[derive(Debug, Clone)]
pub(super) struct TableName {
    /// The parts of its name as they are meant: unquoted ones may differ in case.
    pub(super) name: Vec<Ident>,
    /// What expressions call it.
    pub(super) alias: String,
    pub(super) span: Span,
}

/// A reference table that is looked up.
#[derive(Debug, Clone)]
pub(super) struct ParsedJoin {
    pub(super) table: TableName,
    pub(super) on: SqlExpr,
}

/// Any name of the table in `FROM`.
pub(super) const ANY_TABLE: &str = "source";

impl Parsed {
    pub(super) fn new(sql: &str, functions: &Functions) -> Result<Self, Fault> {
        let keywords = Keywords::of(sql);
        if keywords.words > WORDS_MAX {
            return Err(Fault::new(format!("a transform has more than {WORDS_MAX} words")).help("look many values up in a reference table"));
        }
        let statement = functions.parse(sql).map_err(|error: DataFusionError| Fault::of_parser(&error, sql))?;
        let query = match statement {
            Statement::Statement(statement) => match *statement {
                SqlStatement::Query(query) => query,
                _ => return Err(Fault::new("a transform is one SELECT")),
            },
            _ => return Err(Fault::new("a transform is one SELECT")),
        };
        let mut select = select(*query, &keywords)?;
        not_too_deep(&select)?;
        as_meant(&mut select);
        let mut from = select.from.into_iter();
        let Some(table) = from.next() else {
            return Err(
                Fault::new("a transform selects FROM the changed table").help(format!("write FROM and its name, or FROM {ANY_TABLE}"))
            );
        };
        if let Some(second) = from.next() {
            return Err(Fault::at("a transform selects FROM one table, the changed one", second.span())
                .help("join a reference table with LEFT JOIN … ON …"));
        }
        let joins = table.joins.into_iter().map(join).collect::<Result<Vec<_>, _>>()?;
        let parsed = Parsed { table: table_name(table.relation)?, projection: select.projection, selection: select.selection, joins };
        for item in &parsed.projection {
            no_subquery(item)?;
        }
        if let Some(selection) = &parsed.selection {
            no_subquery(selection)?;
        }
        Ok(parsed)
    }
}

const ROW_BY_ROW: &str = "a transform sees one change at a time, so what it says of a row cannot depend on other rows";

/// Where the words of a statement stand that are in no parentheses.
struct Keywords {
    found: Vec<(Keyword, Span)>,
    /// How many words there are, marks and numbers included.
    words: usize,
}

impl Keywords {
    fn of(sql: &str) -> Self {
        let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().unwrap_or_default();
        let mut depth = 0_usize;
        let (mut found, mut words) = (Vec::new(), 0);
        for TokenWithSpan { token, span } in tokens {
            words += usize::from(!matches!(token, Token::Whitespace(_)));
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                Token::Word(word) if depth == 0 && word.quote_style.is_none() => found.push((word.keyword, span)),
                _ => {}
            }
        }
        Keywords { found, words }
    }

    /// The first place of the first of these words that is there, and the word.
    fn find(&self, words: &[Keyword]) -> Option<(String, Span)> {
        let found = words.iter().find_map(|word| self.found.iter().find(|(other, _)| other == word));
        found.map(|(word, span)| (format!("{word:?}"), *span))
    }

    /// Refuses what one of these words begins.
    fn refuse(&self, words: &[Keyword], suffix: &str, why: &str) -> Fault {
        let (word, span) = self.find(words).unwrap_or_else(|| ("this".to_owned(), Span::empty()));
        Fault::at(format!("{word}{suffix} has no place in a transform{why}"), span)
    }
}

fn select(query: Query, keywords: &Keywords) -> Result<Select, Fault> {
    use Keyword::*;
    let refused = |words: &[Keyword]| {
        let suffix = if words == [GROUP] || words == [ORDER] { " BY" } else { "" };
        keywords.refuse(words, suffix, &format!(": {ROW_BY_ROW}"))
    };
    if query.with.is_some() {
        return Err(keywords.refuse(&[WITH], "", "").help("write one SELECT over the table"));
    }
    if query.order_by.is_some() {
        return Err(refused(&[ORDER]).help("changes keep the order of the log; sort when you query"));
    }
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return Err(refused(&[LIMIT, OFFSET, FETCH]));
    }
    let only = "only SELECT, FROM, LEFT JOIN and WHERE have a place in a transform";
    if !query.locks.is_empty()
        || query.for_clause.is_some()
        || query.settings.is_some()
        || query.format_clause.is_some()
        || !query.pipe_operators.is_empty()
    {
        return Err(Fault::at(only, keywords.find(&[FOR]).map_or_else(|| query.span(), |(_, span)| span)));
    }
    let select = match *query.body {
        SetExpr::Select(select) => *select,
        SetExpr::SetOperation { .. } => {
            return Err(keywords
                .refuse(&[UNION, EXCEPT, INTERSECT, MINUS], "", "")
                .help("a transform is one SELECT; several rules with the same `into` bring several tables together"));
        }
        ref other => return Err(Fault::at("a transform is one SELECT", other.span())),
    };
    if select.distinct.is_some() {
        return Err(refused(&[DISTINCT]));
    }
    match &select.group_by {
        GroupByExpr::Expressions(expressions, modifiers) if expressions.is_empty() && modifiers.is_empty() => {}
        _ => return Err(refused(&[GROUP]).help("aggregate when you query what was landed")),
    }
    if select.having.is_some() {
        return Err(refused(&[HAVING]));
    }
    if select.qualify.is_some() {
        return Err(refused(&[QUALIFY]));
    }
    if !select.named_window.is_empty() {
        return Err(refused(&[WINDOW]));
    }
    if select.top.is_some() {
        return Err(refused(&[TOP]));
    }
    let other = select.exclude.is_some()
        || select.into.is_some()
        || !select.lateral_views.is_empty()
        || select.prewhere.is_some()
        || !select.connect_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty()
        || select.value_table_mode.is_some()
        || select.flavor != SelectFlavor::Standard;
    if other {
        return Err(Fault::at(only, keywords.find(&[INTO]).map_or_else(|| select.span(), |(_, span)| span)));
    }
    Ok(select)
}

fn table_name(factor: TableFactor) -> Result<TableName, Fault> {
    let span = factor.span();
    let TableFactor::Table { name, alias, args: None, with_hints, version, with_ordinality, partitions, json_path, sample, index_hints } =
        factor
    else {
        return Err(
            Fault::at("a transform reads tables by their names", span).help("make what this reads a reference table, and LEFT JOIN it")
        );
    };
    // Whatever else may stand behind a name would change which rows there are, or mean nothing.
    let whole = with_hints.is_empty()
        && version.is_none()
        && !with_ordinality
        && partitions.is_empty()
        && json_path.is_none()
        && sample.is_none()
        && index_hints.is_empty();
    if !whole {
        let help = "write the filter into WHERE: every change comes by, and each is kept or not by what it says";
        return Err(Fault::at("only an alias has a place behind the name of a table", span).help(help));
    }
    let parts = idents(&name).ok_or_else(|| Fault::at("this is not the name of a table", span))?;
    let own = parts.last().map(normalized).unwrap_or_default();
    let alias = match alias {
        Some(alias) if !alias.columns.is_empty() => {
            return Err(Fault::at("an alias of a table cannot rename its columns", span).help("rename them in the SELECT with AS"));
        }
        Some(alias) => normalized(&alias.name),
        None => own,
    };
    Ok(TableName { name: parts, alias, span })
}

fn join(join: datafusion::sql::sqlparser::ast::Join) -> Result<ParsedJoin, Fault> {
    let span = join.span();
    let help = "write LEFT JOIN reference ON source_column = reference.column";
    let constraint = match join.join_operator {
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => constraint,
        _ => {
            return Err(Fault::at(
                "only LEFT JOIN has a place in a transform: with any other join a row without a match would be lost",
                span,
            )
            .help(help));
        }
    };
    let JoinConstraint::On(on) = constraint else {
        return Err(Fault::at("a join in a transform needs ON", span).help(help));
    };
    no_subquery(&on)?;
    Ok(ParsedJoin { table: table_name(join.relation)?, on })
}

fn no_subquery(node: &impl Visit) -> Result<(), Fault> {
    struct Subqueries;
    impl Visitor for Subqueries {
        type Break = Span;

        fn pre_visit_query(&mut self, query: &Query) -> std::ops::ControlFlow<Span> {
            std::ops::ControlFlow::Break(query.span())
        }
    }
    match node.visit(&mut Subqueries) {
        std::ops::ControlFlow::Break(span) => {
            Err(Fault::at("a subquery has no place in a transform", span).help("make what it reads a reference table, and LEFT JOIN it"))
        }
        std::ops::ControlFlow::Continue(()) => Ok(()),
    }
}

/// The parts of a name that consists of names.
pub(super) fn idents(name: &ObjectName) -> Option<Vec<Ident>> {
    name.0.iter().map(|part| part.as_ident().cloned()).collect()
}

/// A name as SQL takes it: in lower case unless it is quoted.
pub(super) fn normalized(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// True if a name in SQL may stand for `name`: the same, or unquoted and different in case alone.
pub(super) fn means(ident: &Ident, name: &str) -> bool {
    ident.value == name || (ident.quote_style.is_none() && ident.value.to_lowercase() == name.to_lowercase())
}
