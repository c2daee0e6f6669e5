//! A rule compiled for one version of a table.
//!
//! Names become columns, expressions become what evaluates them over batches of just the columns they name. What a filter and
//! each column of the target depend on is kept beside it: a value that the log left out makes what depends on it unknown.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column as PlanColumn, DFSchema, DFSchemaRef, ScalarValue, TableReference};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::sql::sqlparser::ast::{
    ExceptSelectItem, ExcludeSelectItem, Expr as SqlExpr, Ident, RenameSelectItem, ReplaceSelectItem, SelectItem,
    SelectItemQualifiedWildcardKind, Spanned, VisitMut, VisitorMut, WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::tokenizer::Span;
use logweir_core::{Column, Relation, RelationName};

use super::functions::Functions;
use super::keys::keeps_apart;
use super::metadata::{PREFIX, PublicColumn};
use super::problem::Fault;
use super::reference::{IndexCache, Reference, References};
use super::rule::{ANY_TABLE, Parsed, ParsedJoin, TableName, means, normalized};

/// Where a column of an evaluated batch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Input {
    /// A column of the table, by index.
    Source(usize),
    /// A metadata column.
    Metadata(PublicColumn),
    /// A column of a reference table, by the number of the join and the column's index.
    Reference(usize, usize),
}

/// An expression ready to run.
#[derive(Debug)]
pub(super) struct Computed {
    pub(super) expr: Arc<dyn PhysicalExpr>,
    /// What the batch it is evaluated over consists of.
    pub(super) inputs: Vec<Input>,
    pub(super) schema: SchemaRef,
    pub(super) depends: Depends,
}

/// What a value depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Depends {
    /// Columns of the table, by index; ascending.
    pub(super) sources: Vec<usize>,
    /// It also depends on whether the change is an insert, an update or a delete, so that what it says is of the change.
    pub(super) kind: bool,
    /// It also depends on what differs from change to change: other metadata.
    pub(super) metadata: bool,
    /// It also depends on a reference table, which may be another at the next look.
    pub(super) references: bool,
}

/// A column of the target.
#[derive(Debug)]
pub(super) enum Output {
    /// A column of the table as it is.
    Pass(usize),
    /// An expression, cast to the type of the target's column if that is another.
    Computed(Computed, Option<DataType>),
}

/// A reference table that rows are looked up in.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) reference: Arc<Reference>,
    /// What the table's side of the equations is, and their types.
    pub(super) source: Vec<Computed>,
    /// What the reference's side is, over batches of the reference table.
    pub(super) key: Vec<Arc<dyn PhysicalExpr>>,
    /// Which rows of the reference table count.
    pub(super) filter: Option<Arc<dyn PhysicalExpr>>,
    pub(super) index: IndexCache,
}

/// A rule for one version of a table.
#[derive(Debug)]
pub(super) struct RulePlan {
    pub(super) lookups: Vec<Lookup>,
    pub(super) filter: Option<Computed>,
    /// What of the condition is about the kind of a change alone: a change of which it is not true is as if it had not been, whatever its
    /// row is.
    pub(super) kinds: Option<Computed>,
    pub(super) outputs: Vec<Output>,
    pub(super) columns: Vec<Column>,
    /// The target's key, by index; empty if the table declares none and the rule names none.
    pub(super) key: Vec<usize>,
    /// The columns of the table that a mask takes, by index.
    pub(super) masked: Vec<usize>,
    /// Worth a warning.
    pub(super) warnings: Vec<String>,
}

impl RulePlan {
    /// The columns of the target's key that are the same in all rows, and what they are: a table with another constant in one of them has no
    /// row in common with this one.
    pub(super) fn key_constants(&self) -> HashMap<String, ScalarValue> {
        let key: Vec<usize> = if self.key.is_empty() { (0..self.outputs.len()).collect() } else { self.key.clone() };
        let constant = |index: usize| match &self.outputs[index] {
            Output::Computed(computed, _) => {
                let literal = computed.expr.downcast_ref::<Literal>()?;
                Some((self.columns[index].name().to_owned(), literal.value().clone()))
            }
            Output::Pass(_) => None,
        };
        key.into_iter().filter_map(constant).collect()
    }

    /// The columns of the table that the target has as they are, by index.
    pub(super) fn passed(&self) -> Vec<usize> {
        self.origins().into_iter().flatten().collect()
    }

    /// For each column of the target the one of the table that it is as it is.
    pub(super) fn origins(&self) -> Vec<Option<usize>> {
        let origin = |output: &Output| match output {
            Output::Pass(index) => Some(*index),
            Output::Computed(..) => None,
        };
        self.outputs.iter().map(origin).collect()
    }
}

/// How the names of the functions begin that mask.
const MASK_PREFIX: &str = "mask_";

/// What a rule says beside its SQL that bears on its plan.
pub(super) struct Wanted<'a> {
    pub(super) key: &'a [String],
}

/// A named expression of the `SELECT`.
struct Item {
    name: String,
    expr: Expr,
    span: Span,
}

/// What the parts of a rule were planned as, each by itself.
#[derive(Default)]
struct Parts {
    lookups: Vec<Lookup>,
    filter: Option<Filter>,
    items: Vec<Item>,
    faults: Vec<Fault>,
}

/// A condition, and what of it is about the kind of a change alone.
struct Filter {
    whole: Computed,
    kinds: Option<Computed>,
}

/// The names that expressions may use.
struct Scope {
    /// Tables by the name they go by, with their columns; the changed table first.
    tables: Vec<(TableReference, Vec<FieldRef>)>,
    /// The columns of the changed table without metadata.
    source_columns: usize,
    schema: DFSchemaRef,
    /// The changed table in the source.
    name: RelationName,
}

pub(super) fn compile(
    parsed: &Parsed,
    relation: &Relation,
    references: &References,
    functions: &Functions,
    wanted: &Wanted<'_>,
) -> Result<RulePlan, Vec<Fault>> {
    let one = |fault: Fault| vec![fault];
    if !names_relation(&parsed.table, relation) {
        let name = relation.name();
        return Err(one(Fault::at(format!("the rule is for {name}, and its SQL selects from another table"), parsed.table.span)
            .help(format!("write FROM {}, or FROM {ANY_TABLE} in a rule for several tables", name.table))));
    }
    let mut scope = Scope::new(parsed, relation).map_err(one)?;
    let mut joins = Vec::new();
    for (number, join) in parsed.joins.iter().enumerate() {
        let reference = reference(&join.table, references).map_err(one)?;
        scope.add(&join.table, reference.schema()).map_err(one)?;
        joins.push((number, join, reference));
    }

    let mut parts = Parts::default();
    for (number, join, reference) in joins {
        match lookup(number, join, reference, &scope, functions) {
            Ok(lookup) => parts.lookups.push(lookup),
            Err(fault) => parts.faults.push(fault),
        }
    }
    if let Some(selection) = &parsed.selection {
        match filter(selection, &scope, functions, &parts.lookups) {
            Ok(filter) => parts.filter = Some(filter),
            Err(fault) => parts.faults.push(fault),
        }
    }
    for item in &parsed.projection {
        match select_item(item, &scope, functions) {
            Ok(named) => parts.items.extend(named),
            Err(fault) => parts.faults.push(fault),
        }
    }
    // What was planned has its types checked, whatever is wrong beside it: who mends one fault is not to meet the next one then.
    target(relation, parts, &scope, functions, wanted)
}

fn names_relation(table: &TableName, relation: &Relation) -> bool {
    let name = relation.name();
    let parts = &table.name;
    match parts.as_slice() {
        [table] => means(table, &name.table) || means(table, ANY_TABLE),
        [schema, table] => means(schema, &name.schema) && means(table, &name.table),
        [database, schema, table] => {
            name.database.as_ref().is_some_and(|own| means(database, own)) && means(schema, &name.schema) && means(table, &name.table)
        }
        _ => false,
    }
}

fn reference<'a>(table: &TableName, references: &'a References) -> Result<&'a Arc<Reference>, Fault> {
    let found = match table.name.as_slice() {
        [name] => references.iter().find(|reference| means(name, reference.name())),
        _ => None,
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = references.iter().map(|reference| reference.name()).collect();
        let help = match names.as_slice() {
            [] => "name it under `references` in the stream, with the file or query that it comes from".to_owned(),
            names => format!("the stream's reference tables are {}", names.join(", ")),
        };
        Fault::at("there is no such reference table", table.span).help(help)
    })
}

impl Scope {
    fn new(parsed: &Parsed, relation: &Relation) -> Result<Self, Fault> {
        let columns = relation.columns().iter().map(|column| Arc::clone(&column.field));
        let fields = columns.chain(PublicColumn::ALL.iter().map(|column| Arc::clone(column.field()))).collect();
        let mut scope = Scope {
            tables: Vec::new(),
            source_columns: relation.columns().len(),
            schema: Arc::new(DFSchema::empty()),
            name: relation.origin().clone(),
        };
        scope.push(&parsed.table.alias, fields, parsed.table.span)?;
        Ok(scope)
    }

    fn add(&mut self, table: &TableName, schema: &Schema) -> Result<(), Fault> {
        // A value of a reference table may be missing in any row.
        let nullable = |field: &FieldRef| Arc::new(Field::clone(field).with_nullable(true));
        self.push(&table.alias, schema.fields().iter().map(nullable).collect(), table.span)
    }

    fn push(&mut self, alias: &str, fields: Vec<FieldRef>, span: Span) -> Result<(), Fault> {
        let name = TableReference::bare(alias);
        if self.tables.iter().any(|(other, _)| *other == name) {
            return Err(Fault::at(format!("two tables go by the name {alias}"), span).help("give one an alias with AS"));
        }
        self.tables.push((name, fields));
        let qualified: Vec<_> =
            self.tables.iter().flat_map(|(table, fields)| fields.iter().map(|field| (Some(table.clone()), Arc::clone(field)))).collect();
        self.schema =
            Arc::new(DFSchema::new_with_metadata(qualified, Default::default()).map_err(|error| Fault::at(error.strip_backtrace(), span))?);
        Ok(())
    }

    /// The columns that `*` stands for: not the metadata of changes.
    fn shown(&self, table: usize) -> &[FieldRef] {
        let fields = &self.tables[table].1;
        if table == 0 { &fields[..self.source_columns] } else { fields }
    }

    fn input(&self, column: &PlanColumn) -> Option<Input> {
        self.tables.iter().enumerate().find_map(|(table, (name, fields))| {
            let named = column.relation.as_ref().is_none_or(|relation| relation == name);
            let index = fields.iter().position(|field| named && *field.name() == column.name)?;
            Some(match table {
                0 if index < self.source_columns => Input::Source(index),
                0 => Input::Metadata(PublicColumn::ALL[index - self.source_columns]),
                join => Input::Reference(join - 1, index),
            })
        })
    }

    /// The same name for what is unquoted and differs in case alone, where that is one column: of `table`, or of any.
    fn exact(&self, ident: &mut Ident, table: Option<usize>) {
        let lower = ident.value.to_lowercase();
        if ident.quote_style.is_some() {
            return;
        }
        let mut names: Vec<&str> = self
            .tables
            .iter()
            .enumerate()
            .filter(|(number, _)| table.is_none_or(|table| table == *number))
            .flat_map(|(_, (_, fields))| fields)
            .map(|field| field.name().as_str())
            .filter(|name| name.to_lowercase() == lower)
            .collect();
        names.sort_unstable();
        names.dedup();
        let exact = match names.as_slice() {
            // As it is written, or else in lower case, or else the only one.
            names if names.contains(&ident.value.as_str()) => ident.value.clone(),
            names if names.contains(&lower.as_str()) => return,
            [only] => (*only).to_owned(),
            _ => return,
        };
        ident.value = exact;
        ident.quote_style = Some('"');
    }

    fn plan(&self, expr: &SqlExpr, functions: &Functions) -> Result<Expr, Fault> {
        struct Exact<'a>(&'a Scope);
        impl VisitorMut for Exact<'_> {
            type Break = ();

            fn pre_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<()> {
                match expr {
                    SqlExpr::Identifier(ident) => self.0.exact(ident, None),
                    SqlExpr::CompoundIdentifier(idents) => {
                        // The first may be a table, and what follows the column a field.
                        let mut table = None;
                        for ident in idents {
                            let named = self.0.tables.iter().position(|(name, _)| name.table() == normalized(ident));
                            if table.is_some() || named.is_none() {
                                self.0.exact(ident, table);
                                break;
                            }
                            table = named;
                        }
                    }
                    _ => {}
                }
                ControlFlow::Continue(())
            }
        }
        let span = expr.span();
        let mut expr = expr.clone();
        let _ = VisitMut::visit(&mut expr, &mut Exact(self));
        let planned = functions.plan(expr, &self.schema, span)?;
        // The name of the table is the same in all its changes.
        let named = planned.transform_up(|expr| {
            Ok(match self.own_name(&expr) {
                Some(name) => Transformed::yes(Expr::Literal(ScalarValue::Utf8(name), None)),
                None => Transformed::no(expr),
            })
        });
        match named {
            Ok(Transformed { data, transformed: true, .. }) => functions.simplify(data, &self.schema),
            named => named.map(|named| named.data),
        }
        .map_err(|error| Fault::of_plan(&error, span))
    }

    /// What `_metadata_source['table']` and the like are.
    fn own_name(&self, expr: &Expr) -> Option<Option<String>> {
        let [Expr::Column(column), Expr::Literal(ScalarValue::Utf8(Some(field)), _)] =
            call_of(expr, |name| name == "get_field")?.args.as_slice()
        else {
            return None;
        };
        if self.input(column) != Some(Input::Metadata(PublicColumn::Source)) {
            return None;
        }
        match field.as_str() {
            "database" => Some(self.name.database.clone()),
            "schema" => Some(Some(self.name.schema.clone())),
            "table" => Some(Some(self.name.table.clone())),
            _ => None,
        }
    }

    /// Compiles an expression over just what it names.
    fn compute(&self, expr: &Expr, functions: &Functions, lookups: &[Lookup], span: Span) -> Result<Computed, Fault> {
        let mut inputs = BTreeSet::new();
        for column in expr.column_refs() {
            inputs.insert(self.input(column).ok_or_else(|| Fault::at(format!("there is no column {}", column.name), span))?);
        }
        let inputs: Vec<Input> = inputs.into_iter().collect();
        let qualified: Vec<_> = inputs.iter().map(|input| self.field(input)).collect();
        let narrow = DFSchema::new_with_metadata(qualified, Default::default());
        let narrow = narrow.map_err(|error| Fault::of_plan(&error, span))?;
        let expr = functions.compile(expr.clone(), &narrow).map_err(|error| Fault::of_plan(&error, span))?;
        let schema = Arc::clone(narrow.inner());
        let depends = Depends::of(&inputs, lookups);
        Ok(Computed { expr, inputs, schema, depends })
    }

    fn field(&self, input: &Input) -> (Option<TableReference>, FieldRef) {
        let (table, index) = match *input {
            Input::Source(index) => (0, index),
            Input::Metadata(column) => (0, self.source_columns + column as usize),
            Input::Reference(join, index) => (join + 1, index),
        };
        let (name, fields) = &self.tables[table];
        (Some(name.clone()), Arc::clone(&fields[index]))
    }
}

impl Depends {
    fn of(inputs: &[Input], lookups: &[Lookup]) -> Self {
        let mut sources = BTreeSet::new();
        let mut depends = Depends::default();
        for input in inputs {
            match input {
                Input::Source(index) => {
                    sources.insert(*index);
                }
                Input::Metadata(PublicColumn::ChangeType | PublicColumn::Deleted) => depends.kind = true,
                Input::Metadata(_) => depends.metadata = true,
                Input::Reference(join, _) => {
                    depends.references = true;
                    for computed in lookups.get(*join).into_iter().flat_map(|lookup| &lookup.source) {
                        sources.extend(&computed.depends.sources);
                        depends.kind |= computed.depends.kind;
                        depends.metadata |= computed.depends.metadata;
                    }
                }
            }
        }
        depends.sources = sources.into_iter().collect();
        depends
    }

    /// True for what depends on nothing but the declared key, which an update that is not in two halves leaves alone.
    pub(super) fn of_key_alone(&self, relation: &Relation) -> bool {
        relation.key_declared() && !self.metadata && !self.references && self.sources.iter().all(|index| relation.key().contains(index))
    }
}

impl Output {
    /// What the column depends on.
    pub(super) fn depends(&self) -> Cow<'_, Depends> {
        match self {
            Output::Pass(index) => Cow::Owned(Depends { sources: vec![*index], ..Depends::default() }),
            Output::Computed(computed, _) => Cow::Borrowed(&computed.depends),
        }
    }
}

fn filter(selection: &SqlExpr, scope: &Scope, functions: &Functions, lookups: &[Lookup]) -> Result<Filter, Fault> {
    let span = selection.span();
    let expr = scope.plan(selection, functions)?;
    let data_type = expr.get_type(&scope.schema).map_err(|error| Fault::of_plan(&error, span))?;
    if !matches!(data_type, DataType::Boolean | DataType::Null) {
        return Err(Fault::at(format!("the condition is {data_type}, neither true nor false"), span));
    }
    let expr = if data_type == DataType::Null { Expr::Cast(Cast::new(Box::new(expr), DataType::Boolean)) } else { expr };
    let of_kind = |input: Option<Input>| matches!(input, Some(Input::Metadata(PublicColumn::ChangeType | PublicColumn::Deleted)));
    let about_kinds = |part: &Expr| {
        let columns = part.column_refs();
        !columns.is_empty() && columns.into_iter().all(|column| of_kind(scope.input(column)))
    };
    let kinds = split_conjunction_owned(expr.clone()).into_iter().filter(about_kinds).reduce(Expr::and);
    let kinds = kinds.map(|kinds| scope.compute(&kinds, functions, lookups, span)).transpose()?;
    Ok(Filter { whole: scope.compute(&expr, functions, lookups, span)?, kinds })
}

/// The equations of a join, and what else it demands of the reference table.
fn lookup(number: usize, join: &ParsedJoin, reference: &Arc<Reference>, scope: &Scope, functions: &Functions) -> Result<Lookup, Fault> {
    let span = join.on.span();
    let help = "write ON source_column = reference.column, with AND between several";
    let own = &scope.tables[number + 1].0;
    let mut lookup =
        Lookup { reference: Arc::clone(reference), source: Vec::new(), key: Vec::new(), filter: None, index: IndexCache::default() };
    let mut demands = Vec::new();
    let side = |expr: &Expr| {
        let tables: BTreeSet<bool> = expr.column_refs().iter().map(|column| column.relation.as_ref() == Some(own)).collect();
        match (tables.contains(&true), tables.contains(&false)) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            _ => None,
        }
    };
    let qualifier = own.clone();
    let narrow = DFSchema::try_from_qualified_schema(qualifier, reference.schema()).map_err(|error| Fault::of_plan(&error, span))?;
    for condition in split_conjunction_owned(scope.plan(&join.on, functions)?) {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right })
                if matches!((side(&left), side(&right)), (Some(true), Some(false)) | (Some(false), Some(true))) =>
            {
                let (theirs, ours) = if side(&left) == Some(true) { (left, right) } else { (right, left) };
                lookup.source.push(scope.compute(&ours, functions, &[], span)?);
                lookup.key.push(functions.compile(*theirs, &narrow).map_err(|error| Fault::of_plan(&error, span))?);
            }
            condition if side(&condition) == Some(true) => demands.push(condition),
            _ => return Err(Fault::at("a reference table is joined by equations between its columns and the table's", span).help(help)),
        }
    }
    if lookup.key.is_empty() {
        return Err(Fault::at("the join has no equation between the table and the reference table", span).help(help));
    }
    if let Some(demand) = demands.into_iter().reduce(Expr::and) {
        lookup.filter = Some(functions.compile(demand, &narrow).map_err(|error| Fault::of_plan(&error, span))?);
    }
    if lookup.source.iter().any(|computed| computed.depends.references) {
        return Err(Fault::at("a reference table is joined to the changed table, not to another reference table", span));
    }
    Ok(lookup)
}

fn select_item(item: &SelectItem, scope: &Scope, functions: &Functions) -> Result<Vec<Item>, Fault> {
    match item {
        SelectItem::UnnamedExpr(expr) => {
            let planned = scope.plan(expr, functions)?;
            let name = match &planned {
                Expr::Column(column) => column.name.clone(),
                Expr::Alias(alias) => alias.name.clone(),
                _ => {
                    return Err(
                        Fault::at("the column that this makes has no name", expr.span()).help(format!("write {} AS name", shortened(expr)))
                    );
                }
            };
            Ok(vec![Item { name, expr: planned.unalias(), span: expr.span() }])
        }
        SelectItem::ExprWithAlias { expr, alias } => {
            Ok(vec![Item { name: normalized(alias), expr: scope.plan(expr, functions)?.unalias(), span: expr.span() }])
        }
        SelectItem::Wildcard(options) => wildcard(None, options, scope, functions),
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
            let own = name.0.last().and_then(|part| part.as_ident()).map(normalized).unwrap_or_default();
            let table = scope.tables.iter().position(|(table, _)| table.table() == own);
            let table = table.ok_or_else(|| Fault::at(format!("there is no table {own} here"), name.span()))?;
            wildcard(Some(table), options, scope, functions)
        }
        other => Err(Fault::at("this has no place in the SELECT of a transform", other.span())),
    }
}

fn shortened(expr: &SqlExpr) -> String {
    let text = expr.to_string();
    if text.chars().count() > 40 { "…".to_owned() } else { text }
}

/// What `*` stands for: the columns of the tables, without what it excludes, with what it replaces and renames.
fn wildcard(table: Option<usize>, options: &WildcardAdditionalOptions, scope: &Scope, functions: &Functions) -> Result<Vec<Item>, Fault> {
    let span = options.wildcard_token.0.span;
    if options.opt_ilike.is_some() || options.opt_alias.is_some() {
        return Err(Fault::at("only EXCEPT, EXCLUDE, REPLACE and RENAME may stand behind *", span));
    }
    let mut excluded: Vec<Ident> = match &options.opt_exclude {
        Some(ExcludeSelectItem::Single(name)) => vec![name].into_iter().filter_map(last_ident).collect(),
        Some(ExcludeSelectItem::Multiple(names)) => names.iter().filter_map(last_ident).collect(),
        None => Vec::new(),
    };
    if let Some(ExceptSelectItem { first_element, additional_elements }) = &options.opt_except {
        excluded.push(first_element.clone());
        excluded.extend(additional_elements.iter().cloned());
    }
    let renamed: Vec<(&Ident, &Ident)> = match &options.opt_rename {
        Some(RenameSelectItem::Single(item)) => vec![(&item.ident, &item.alias)],
        Some(RenameSelectItem::Multiple(items)) => items.iter().map(|item| (&item.ident, &item.alias)).collect(),
        None => Vec::new(),
    };
    let replaced = match &options.opt_replace {
        Some(ReplaceSelectItem { items }) => items.as_slice(),
        None => &[],
    };
    let tables = table.map_or(0..scope.tables.len(), |table| table..table + 1);
    let columns: Vec<(usize, &FieldRef)> = tables.flat_map(|table| scope.shown(table).iter().map(move |field| (table, field))).collect();
    // As elsewhere: the column that is called just so, and only where there is none, those whose names differ in case.
    let is_called = |name: &str| columns.iter().any(|(_, field)| field.name() == name);
    let meant = |ident: &Ident, name: &str| {
        let unquoted = normalized(ident);
        match [&ident.value, &unquoted].into_iter().find(|wanted| is_called(wanted)) {
            Some(wanted) => wanted == name,
            None => means(ident, name),
        }
    };
    let named = excluded.iter().chain(renamed.iter().map(|(ident, _)| *ident)).chain(replaced.iter().map(|item| &item.column_name));
    for ident in named {
        if !columns.iter().any(|(_, field)| meant(ident, field.name())) {
            return Err(Fault::at(format!("there is no column {} in *", ident.value), ident.span));
        }
    }
    let mut items = Vec::new();
    for (table, field) in &columns {
        let name = field.name();
        if excluded.iter().any(|ident| meant(ident, name)) {
            continue;
        }
        let expr = match replaced.iter().find(|item| meant(&item.column_name, name)) {
            Some(item) => scope.plan(&item.expr, functions)?.unalias(),
            None => Expr::Column(PlanColumn::new(Some(scope.tables[*table].0.clone()), name)),
        };
        let name = renamed.iter().find(|(ident, _)| meant(ident, name)).map_or_else(|| name.clone(), |(_, alias)| normalized(alias));
        items.push(Item { name, expr, span });
    }
    Ok(items)
}

fn last_ident(name: &datafusion::sql::sqlparser::ast::ObjectName) -> Option<Ident> {
    name.0.last().and_then(|part| part.as_ident()).cloned()
}

/// Makes the target of what the `SELECT` names, if there are no faults and none are found.
fn target(relation: &Relation, parts: Parts, scope: &Scope, functions: &Functions, wanted: &Wanted<'_>) -> Result<RulePlan, Vec<Fault>> {
    let Parts { lookups, filter, items, mut faults } = parts;
    let (filter, kinds) = filter.map_or((None, None), |filter| (Some(filter.whole), filter.kinds));
    let mut warnings = Vec::new();
    let (mut outputs, mut columns): (Vec<Output>, Vec<Column>) = (Vec::new(), Vec::new());
    // For each column of the target the source column that it tells apart.
    let mut stands_for: Vec<Option<usize>> = Vec::new();
    let mut masked = Vec::new();
    for Item { name, expr, span } in items {
        masked_sources(&expr, scope, &mut masked);
        if let Some(metadata) = PublicColumn::ALL.iter().find(|column| column.field().name().eq_ignore_ascii_case(&name)) {
            // Passed under its own name it is there anyhow.
            let itself = matches!(&expr, Expr::Column(column) if scope.input(column) == Some(Input::Metadata(*metadata)));
            if !itself {
                faults.push(
                    Fault::at(format!("{name} is a metadata column and cannot be made by a transform"), span)
                        .help("give it another name with AS"),
                );
            }
            continue;
        }
        if name.to_lowercase().starts_with(PREFIX) {
            faults.push(
                Fault::at(format!("a name that begins with {PREFIX} is kept for metadata"), span).help("give it another name with AS"),
            );
            continue;
        }
        if let Some(other) = columns.iter().find(|column| column.name().to_lowercase() == name.to_lowercase()) {
            let message = format!("two columns of the target are called {}", other.name());
            faults.push(Fault::at(message, span).help("give one another name with AS, or leave it out of * with EXCEPT"));
            continue;
        }
        match output(relation, &name, &expr, span, scope, functions, &lookups) {
            Ok((output, column)) => {
                stands_for.push(keeps_apart(&expr, &scope.schema).and_then(|column| match scope.input(column) {
                    Some(Input::Source(index)) => Some(index),
                    _ => None,
                }));
                outputs.push(output);
                columns.push(column);
            }
            Err(fault) => faults.push(fault),
        }
    }
    if columns.is_empty() && faults.is_empty() {
        faults.push(Fault::new("the SELECT names no column of the table").help("write SELECT *, or the columns wanted"));
    }
    let of_key_alone: Vec<bool> =
        outputs.iter().map(|output| output.depends()).map(|depends| depends.of_key_alone(relation) && !depends.kind).collect();
    let key = key(relation, &columns, &stands_for, &of_key_alone, wanted, &mut faults, &mut warnings);
    if !relation.key_declared() && key.is_empty() {
        let differs = |output: &Output| {
            let depends = output.depends();
            depends.kind || depends.metadata || depends.references
        };
        let differing = outputs.iter().zip(&columns).filter(|(output, _)| differs(output)).map(|(_, column)| column.name());
        let differing: Vec<&str> = differing.collect();
        if filter.as_ref().is_some_and(|filter| filter.depends.metadata || filter.depends.references) {
            warnings.push(format!(
                "{} has no key, and the condition may be true of a row when it comes and not when it is deleted: such a row stays in the target; its changes are complete",
                relation.name()
            ));
        }
        if !differing.is_empty() {
            warnings.push(format!(
                "{} has no key, so its rows are found by all their values, and {} may differ from change to change: in the current state of the target deletes and updates do not find their rows; its changes are complete",
                relation.name(),
                differing.join(", ")
            ));
        }
    }
    if faults.is_empty() {
        return Ok(RulePlan { lookups, filter, kinds, outputs, columns, key, masked, warnings });
    }
    faults.sort_by_key(|fault| fault.place);
    Err(faults)
}

/// Adds the columns of the table that a mask in the expression takes.
fn masked_sources(expr: &Expr, scope: &Scope, masked: &mut Vec<usize>) {
    // Nothing here fails.
    let _ = expr.apply(|expr| {
        let Some(call) = call_of(expr, |name| name.starts_with(MASK_PREFIX)) else { return Ok(TreeNodeRecursion::Continue) };
        for column in call.args.iter().flat_map(Expr::column_refs) {
            if let Some(Input::Source(index)) = scope.input(column) {
                masked.push(index);
            }
        }
        Ok(TreeNodeRecursion::Jump)
    });
}

fn output(
    relation: &Relation,
    name: &str,
    expr: &Expr,
    span: Span,
    scope: &Scope,
    functions: &Functions,
    lookups: &[Lookup],
) -> Result<(Output, Column), Fault> {
    if let Expr::Column(column) = expr
        && let Some(Input::Source(index)) = scope.input(column)
    {
        let source = &relation.columns()[index];
        let field = Arc::new(Field::clone(&source.field).with_name(name).with_nullable(true));
        return Ok((Output::Pass(index), Column { field, ..source.clone() }));
    }
    let computed = scope.compute(expr, functions, lookups, span)?;
    let made = computed.expr.return_field(&computed.schema).map_err(|error| Fault::of_plan(&error, span))?;
    let data_type = match made.data_type() {
        DataType::Null => {
            return Err(Fault::at(format!("the type of {name} is not known"), span).help("say it: CAST(NULL AS VARCHAR)"));
        }
        other if !lands(other) => {
            let (what, help) = match other {
                DataType::Union(..) => {
                    ("a JSON value of any type", "say which: ->> or json_get_str, json_get_int, …, or json_get_json for its text")
                }
                _ => ("of a type that cannot be landed", "make it another one with CAST"),
            };
            return Err(Fault::at(format!("{name} is {what}"), span).help(help));
        }
        other => landed_type(other),
    };
    let cast = (data_type != *made.data_type()).then(|| data_type.clone());
    let field = Field::new(name, data_type.clone(), true).with_metadata(made.metadata().clone());
    let column = Column { field: Arc::new(field), source_type: format!("sql({data_type})"), detail: Default::default() };
    Ok((Output::Computed(computed, cast), column))
}

/// False for types that no file has.
fn lands(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) | DataType::RunEndEncoded(..) | DataType::Interval(_) | DataType::ListView(_) | DataType::LargeListView(_) => {
            false
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => {
            lands(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().all(|field| lands(field.data_type())),
        DataType::Dictionary(_, value) => lands(value),
        _ => true,
    }
}

/// Views are a form of memory, not of data, and share buffers with what they were cut from.
fn landed_type(data_type: &DataType) -> DataType {
    let landed = |field: &FieldRef| Arc::new(Field::clone(field).with_data_type(landed_type(field.data_type())));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(landed(item)),
        DataType::LargeList(item) => DataType::LargeList(landed(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(landed(item), *length),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(landed).collect()),
        other => other.clone(),
    }
}

/// The target's key: what became of the table's, or what the rule names.
fn key(
    relation: &Relation,
    columns: &[Column],
    stands_for: &[Option<usize>],
    of_key_alone: &[bool],
    wanted: &Wanted<'_>,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
) -> Vec<usize> {
    let mut named: Vec<usize> = Vec::new();
    for name in wanted.key {
        match columns.iter().position(|column| column.name() == name) {
            Some(index) if !named.contains(&index) => named.push(index),
            Some(_) => {}
            None if faults.is_empty() => {
                let names: Vec<&str> = columns.iter().map(Column::name).collect();
                faults.push(
                    Fault::new(format!("`key` names {name}, which is no column of the target"))
                        .help(format!("its columns are {}", names.join(", "))),
                );
            }
            None => {}
        }
    }
    if !relation.key_declared() {
        let kept = |index: usize| stands_for.contains(&Some(index));
        if let Some(lost) = (0..relation.columns().len()).find(|index| !kept(*index)) {
            warnings.push(format!(
                "{} has no key, so all its columns are one, and without {} rows may become equal that were not: their current state cannot tell them apart",
                relation.name(),
                relation.columns()[lost].name()
            ));
        }
        return named;
    }
    let mut key = Vec::new();
    let whole = faults.is_empty();
    for &index in relation.key() {
        let mut standing = (0..columns.len()).filter(|output| stands_for[*output] == Some(index));
        // What the rule names first; else what is first.
        let found = standing.clone().find(|output| named.contains(output)).or_else(|| standing.next());
        match found {
            Some(output) if named.is_empty() || named.contains(&output) => key.push(output),
            // A column that `key` names may be one with a fault.
            Some(_) if !whole => {}
            Some(output) => faults.push(Fault::new(format!(
                "`key` must hold {}, which is what becomes of the table's key column {}",
                columns[output].name(),
                relation.columns()[index].name()
            ))),
            None if faults.is_empty() => {
                let name = relation.columns()[index].name();
                faults.push(Fault::new(format!("the key column {name} of {} is lost: updates and deletes would not find their rows", relation.name())).help(format!(
                    "select {name} itself; it may be renamed, cast to a type that keeps its values apart, or masked with mask_hash or mask_tokenize"
                )));
            }
            None => {}
        }
    }
    // Any other column may change while the key of the table does not, and is in no delete that the log has the key of alone.
    let beside = named.iter().filter(|output| !key.contains(output));
    for output in beside.filter(|output| !of_key_alone[**output]) {
        if faults.is_empty() {
            faults.push(
                Fault::new(format!(
                    "`key` names {}, which may change while the table's key does not: updates and deletes would not find their rows",
                    columns[*output].name()
                ))
                .help("name what the table's key becomes, and beside it only what is the same for all rows of the table or is made of its key"),
            );
        }
    }
    if named.is_empty() { key } else { named }
}

/// The arguments of a call of a function of one of these names.
pub(super) fn call_of(expr: &Expr, is: impl Fn(&str) -> bool) -> Option<&ScalarFunction> {
    match expr {
        Expr::ScalarFunction(function) if is(function.func.name()) => Some(function),
        _ => None,
    }
}
