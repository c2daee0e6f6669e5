//! Transforms: what the SQL of a stream's configuration makes of the changes of its tables.
//!
//! A rule is one `SELECT` over a changed table. It is planned once for each version of a table and evaluated batch by batch, on
//! Arrow; columns that it takes as they are pass by reference. A table without a rule passes as it is.
//!
//! ```text
//! rule ── parse (rule) ── compile for a relation (plan, functions, keys) ── per batch: fates (cases) ── columns (rows, apply)
//! ```
//!
//! **Changes stay changes.** A filter turns updates into inserts and deletes ([`cases`]); the key of the target is what the key of
//! the table becomes, and a rule that loses it is refused. What the log left out stays left out, and so does what is made of it;
//! where that cannot be told from NULL downstream, the change is a bad value.

mod apply;
mod before;
pub(crate) mod cases;
mod checked;
pub(crate) mod depth;
mod evaluate;
mod functions;
mod keys;
mod metadata;
mod plan;
mod problem;
pub(crate) mod quarantine;
mod reference;
mod reference_file;
pub(crate) mod rows;
mod rule;
pub(crate) mod spelling;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::ScalarUDF;
use logweir_core::{BeforeImages, ChangeBatch, ChangeType, Column, Error, Pattern, Relation, RelationId, RelationName, Result, Transform};

pub use evaluate::catches_panics;
pub use problem::{SqlPlace, SqlProblem};
pub use reference::{Reference, References};
pub use reference_file::read_reference_file;
pub use rule::{SchemaChange, SharedTruncate, SqlRule, Unresolved};

use depth::on_large_stack;
use functions::Functions;
use plan::{RulePlan, Wanted, compile};
use problem::Fault;
use quarantine::{SetAside, Shown};
use rule::Parsed;

/// What happens to a change that a rule cannot carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BadValue {
    /// The stream stops, and names the place.
    #[default]
    Fail,
    /// It is kept aside, in the table `logweir.quarantine`.
    Quarantine,
}

/// What rules may use beside the table itself.
#[derive(Debug, Clone, Default)]
pub struct SqlContext {
    /// Functions beside DataFusion's own: the masks.
    pub functions: Vec<Arc<ScalarUDF>>,
    /// Tables to look values up in.
    pub references: References,
    /// Tables as they are now, for what cannot be told from those that have come so far: what a column is that a version of a table
    /// does not have, for rules with [`SchemaChange::Null`], and which tables share a target.
    pub known: Vec<Arc<Relation>>,
    /// What happens to a change that a rule cannot carry.
    pub bad_value: BadValue,
    /// Patterns over `schema.table` in the source: the tables of which what updated rows were before is carried, too.
    pub before_images: Vec<Pattern>,
    /// True if the changes have been through other SQL, as those of a destination with rules of its own may have: what was set aside
    /// there has other columns than the tables here.
    pub behind_sql: bool,
}

/// A rule that was parsed.
struct Rule {
    settings: SqlRule,
    parsed: Parsed,
}

/// A rule for one version of a table.
struct Planned {
    rule: usize,
    plan: RulePlan,
    target: Arc<Relation>,
    /// What updated rows were before is carried, too.
    before_images: bool,
}

/// What becomes of a version of a table.
enum Plan {
    /// No rule is for it.
    Pass,
    Rules(Vec<Planned>),
    /// It is the table of what was set aside before.
    SetAside,
}

/// What a table becomes, and what is worth a warning about it.
pub type Targets = (Vec<Arc<Relation>>, Vec<SqlProblem>);

/// The tables that go into a target, with the rules that send them there; `None` for one that has no rule.
type Sources = BTreeMap<RelationName, Option<usize>>;

/// The [`Transform`] that applies SQL rules.
pub struct SqlTransform {
    rules: Vec<Rule>,
    matched: Vec<bool>,
    functions: Functions,
    references: References,
    bad_value: BadValue,
    behind_sql: bool,
    keep_before_images: Vec<Pattern>,
    plans: HashMap<RelationId, Plan>,
    shown: HashMap<RelationName, Shown>,
    targets: HashMap<RelationName, Sources>,
    /// Of a target and a table that goes into it: what is the same in the key of all its rows.
    constants: HashMap<(RelationName, RelationName), HashMap<String, ScalarValue>>,
    /// The columns that are or were seen of a table: what one that is not there is elsewhere.
    seen: HashMap<RelationName, Vec<Column>>,
}

impl SqlTransform {
    /// A transform of these rules. All that is wrong with them and can be told without a table is in the error.
    pub fn new(rules: Vec<SqlRule>, context: SqlContext) -> std::result::Result<Self, Vec<SqlProblem>> {
        let functions = Functions::new(&context.functions).map_err(|error| vec![Fault::new(error.strip_backtrace()).problem(0)])?;
        let mut problems = Vec::new();
        let mut parsed_rules = Vec::new();
        for (number, settings) in rules.into_iter().enumerate() {
            if let Some(into) = &settings.into
                && let Err(fault) = target_name(into, &RelationName::new("schema", "table"))
            {
                problems.push(fault.problem(number));
            }
            match on_large_stack(|| Parsed::new(&settings.sql, &functions)).and_then(|parsed| parsed) {
                Ok(parsed) => parsed_rules.push(Rule { settings, parsed }),
                Err(fault) => problems.push(fault.problem(number)),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let targets = known_targets(&parsed_rules, &context.known);
        Ok(SqlTransform {
            matched: vec![false; parsed_rules.len()],
            rules: parsed_rules,
            functions,
            references: context.references,
            bad_value: context.bad_value,
            behind_sql: context.behind_sql,
            keep_before_images: context.before_images,
            plans: HashMap::new(),
            shown: HashMap::new(),
            targets,
            constants: HashMap::new(),
            seen: context.known.iter().map(|relation| (relation.name().clone(), relation.columns().to_vec())).collect(),
        })
    }

    /// The same with another answer to what a rule cannot carry.
    #[must_use]
    pub fn with_bad_value(mut self, bad_value: BadValue) -> Self {
        self.bad_value = bad_value;
        self
    }

    /// The columns of a planned table that its rules put into a mask and nowhere as they are, by index, ascending.
    pub fn masked_columns(&self, relation: &Relation) -> Vec<usize> {
        let Some(Plan::Rules(planned)) = self.plans.get(&relation.id()) else { return Vec::new() };
        let passed: BTreeSet<usize> = planned.iter().flat_map(|planned| planned.plan.passed()).collect();
        let masked: BTreeSet<usize> = planned.iter().flat_map(|planned| &planned.plan.masked).copied().collect();
        masked.difference(&passed).copied().collect()
    }

    /// The column of a planned table that each column of one of its targets is as it is, by index; `None` for a computed one.
    pub fn passed_columns(&self, relation: &Relation, target: &RelationName) -> Vec<Option<usize>> {
        match self.plans.get(&relation.id()) {
            Some(Plan::Rules(planned)) => {
                let planned = planned.iter().find(|planned| planned.target.name() == target);
                planned.map(|planned| planned.plan.origins()).unwrap_or_default()
            }
            _ => (0..relation.columns().len()).map(Some).collect(),
        }
    }

    /// The tables whose updates are better told with the row before: those that a rule filters.
    pub fn before_images(&self) -> Vec<Pattern> {
        let filtered = self.rules.iter().filter(|rule| rule.parsed.selection.is_some());
        filtered.map(|rule| rule.settings.table.clone()).collect()
    }

    /// The targets of a table by their names, which no version of it and no reference table has a say in.
    pub fn target_names(&self, table: &RelationName) -> Vec<RelationName> {
        let mut names: Vec<RelationName> = targets_of(&self.rules, table).into_iter().map(|(name, _)| name).collect();
        if self.bad_value == BadValue::Quarantine {
            names.push(quarantine::relation().name().clone());
        }
        names
    }

    /// Rules that have been for no table so far: worth a warning once the tables are known.
    pub fn unmatched(&self) -> Vec<usize> {
        (0..self.rules.len()).filter(|number| !self.matched[*number]).collect()
    }

    /// Plans a table as [`Transform::output`] does, and tells all that is wrong, or else the targets and what is worth a warning.
    pub fn plan(&mut self, relation: &Arc<Relation>) -> std::result::Result<Targets, Vec<SqlProblem>> {
        if relation.same_shape(quarantine::relation()) {
            // What was set aside before is no table of the source, whatever a pattern matches.
            self.plans.insert(relation.id(), Plan::SetAside);
            return Ok((vec![Arc::clone(relation)], Vec::new()));
        }
        let (mut planned, mut problems, mut warnings) = (Vec::<Planned>::new(), Vec::new(), Vec::new());
        let name = relation.name();
        for number in 0..self.rules.len() {
            if !self.rules[number].settings.table.matches(&name.to_string()) {
                continue;
            }
            self.matched[number] = true;
            let rule = &self.rules[number];
            match self.plan_rule(number, rule, relation) {
                Ok((plan, target_name)) => {
                    if let Some(other) = planned.iter().find(|other| *other.target.name() == target_name) {
                        problems.push(
                            Fault::new(format!("two rules send {name} to {target_name}: this one and rule {}", other.rule + 1))
                                .help("give one of them an `into` of its own, or a narrower `table`")
                                .problem(number),
                        );
                        continue;
                    }
                    warnings.extend(plan.warnings.iter().map(|warning| Fault::new(warning.clone()).problem(number)));
                    let target = Arc::new(relation.transformed(target_name, plan.columns.clone(), plan.key.clone()));
                    let before_images = BeforeImages::are_kept(&self.keep_before_images, &target);
                    planned.push(Planned { rule: number, plan, target, before_images });
                }
                Err(faults) => problems.extend(faults.into_iter().map(|fault| fault.problem(number))),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let ruled = !planned.is_empty();
        let mut targets: Vec<Arc<Relation>> =
            if ruled { planned.iter().map(|planned| Arc::clone(&planned.target)).collect() } else { vec![Arc::clone(relation)] };
        for (number, target) in targets.iter().enumerate() {
            let sources = self.targets.entry(target.name().clone()).or_default();
            let rule = planned.get(number).map(|planned| planned.rule);
            let other = sources.iter().find(|(source, other)| *source != name && (other.is_none() || rule.is_none()));
            if let Some((other, others)) = other {
                let (own, sent) = if rule.is_none() { (name, other) } else { (other, name) };
                return Err(vec![
                    Fault::new(format!("the rule sends {sent} to {own}, which is a table of the stream itself"))
                        .help("give the rule another `into`")
                        .problem(rule.or(*others).unwrap_or_default()),
                ]);
            }
            sources.insert(name.clone(), rule);
            let constants = planned.get(number).map(|planned| planned.plan.key_constants()).unwrap_or_default();
            // One that is known by its name alone has other constants, as far as anybody can tell.
            let apart = |source: &RelationName| match self.constants.get(&(target.name().clone(), source.clone())) {
                Some(others) => constants.iter().any(|(column, value)| others.get(column).is_some_and(|other| other != value)),
                None => !constants.is_empty(),
            };
            let alike = sources.keys().find(|source| *source != name && !apart(source)).cloned();
            self.constants.insert((target.name().clone(), name.clone()), constants);
            if let (Some(planned), Some(other)) = (planned.get(number), alike) {
                let target = target.name();
                warnings.push(
                    Fault::new(format!("{name} and {other} both go to {target}, and nothing in its key says which: rows of the same key are one row there"))
                        .help("select a column that is another constant for each (_metadata_source['schema'] AS shop, say), and name it in `key` beside the table's key")
                        .problem(planned.rule),
                );
            }
        }
        if ruled && self.bad_value == BadValue::Quarantine {
            targets.push(Arc::clone(quarantine::relation()));
        }
        self.show(relation, &planned);
        let plan = if ruled { Plan::Rules(planned) } else { Plan::Pass };
        self.plans.insert(relation.id(), plan);
        self.remember(relation);
        Ok((targets, warnings))
    }

    /// Notes which columns a table shows in its targets as they are.
    fn show(&mut self, relation: &Relation, planned: &[Planned]) {
        let shown = self.shown.entry(relation.origin().clone()).or_insert(Shown::Everything);
        if planned.is_empty() {
            return;
        }
        if matches!(shown, Shown::Everything) {
            *shown = Shown::Columns(HashMap::new());
        }
        let Shown::Columns(columns) = shown else { return };
        if self.behind_sql {
            return;
        }
        let passed: BTreeSet<usize> = planned.iter().flat_map(|planned| planned.plan.passed()).collect();
        for (index, column) in relation.columns().iter().enumerate() {
            // What one version of the table hides may be in a row of any.
            *columns.entry(column.name().to_owned()).or_insert(true) &= passed.contains(&index);
        }
    }

    /// Keeps the newest that is known of each column, those that are gone included.
    fn remember(&mut self, relation: &Relation) {
        let earlier = self.seen.remove(relation.name()).unwrap_or_default();
        let columns = relation.with_gone_columns(&earlier).columns().to_vec();
        self.seen.insert(relation.name().clone(), columns);
    }

    fn plan_rule(&self, number: usize, rule: &Rule, relation: &Arc<Relation>) -> std::result::Result<(RulePlan, RelationName), Vec<Fault>> {
        let wanted = Wanted { key: &rule.settings.key };
        let compile = |relation: &Relation| {
            let compiled = on_large_stack(|| compile(&rule.parsed, relation, &self.references, &self.functions, &wanted));
            compiled.unwrap_or_else(|fault| Err(vec![fault]))
        };
        let mut plan = compile(relation);
        if let (Err(_), SchemaChange::Null, Some(earlier)) = (&plan, rule.settings.schema_change, self.seen.get(relation.name())) {
            let with_gone = relation.with_gone_columns(earlier);
            let gone: Vec<&str> = with_gone.columns()[relation.columns().len()..].iter().map(Column::name).collect();
            if !gone.is_empty()
                && let Ok(nulls) = compile(&with_gone)
            {
                let table = relation.name();
                tracing::warn!(%table, rule = number + 1, columns = gone.join(", "), "columns that a transform may name are not in this version of the table: they are NULL");
                plan = Ok(nulls);
            }
        }
        let plan = plan?;
        for lookup in &plan.lookups {
            lookup.prepare().map_err(|error| vec![Fault::of(&error)])?;
        }
        let name = match &rule.settings.into {
            Some(into) => target_name(into, relation.name()).map_err(|fault| vec![fault])?,
            None => relation.name().clone(),
        };
        Ok((plan, name))
    }

    fn apply_rule(&self, planned: &Planned, batch: &ChangeBatch, out: &mut Vec<ChangeBatch>) -> Result<()> {
        let settings = &self.rules[planned.rule].settings;
        let Planned { plan, target, before_images, .. } = planned;
        let applied = apply::apply(plan, target, settings.unresolved, *before_images, batch)?;
        if !applied.bad.is_empty() {
            let rule = format!("{} {}", planned.rule + 1, settings.table);
            let column = |bad: &apply::BadRow| bad.column.map(|index| planned.target.columns()[index].name());
            if self.bad_value == BadValue::Fail {
                let bad = &applied.bad[0];
                let error = Error::data("a change cannot be carried by a transform")
                    .context("reason", bad.reason.0)
                    .context("table", batch.relation.name())
                    .context("rule", rule)
                    .context("column", column(bad).unwrap_or("WHERE"))
                    .context("position", batch.position(bad.row));
                return Err(error.remedy(
                    "make the expression fit such rows (TRY_CAST, NULLIF, CASE), have the source log whole rows (REPLICA IDENTITY FULL, \
                     binlog_row_image=FULL), or set on_bad_value: quarantine",
                ));
            }
            let reason = |bad: &apply::BadRow| format!("{}: {}", column(bad).unwrap_or("WHERE"), bad.reason.0);
            // Where nobody knows whether the row may pass, only its key is kept.
            let aside = |bad: &apply::BadRow| SetAside { row: bad.row, reason: reason(bad), key_only: bad.column.is_none() };
            let mut aside: Vec<SetAside> = applied.bad.iter().map(aside).collect();
            aside.dedup_by_key(|change| change.row);
            out.push(quarantine::set_aside(batch, &rule, &planned.plan.passed(), &aside)?);
        }
        out.extend(applied.batch);
        Ok(())
    }

    /// True if the target of a rule may hold rows of other tables than the one at hand, whichever those are.
    fn may_be_shared(&self, rule: usize, target: &RelationName) -> bool {
        let settings = &self.rules[rule].settings;
        let Some(into) = &settings.into else { return false };
        let any = |text: &str| text.contains(['*', '?']);
        // A `*` stands for dots, too, so without one it may be of both names.
        let (schema, table) = settings.table.as_str().split_once('.').unwrap_or((settings.table.as_str(), settings.table.as_str()));
        let several = (any(schema) && !into.contains("{schema}")) || (any(table) && !into.contains("{table}"));
        let target = target.to_string();
        let reaches = |other: &Rule| other.settings.into.as_deref().is_some_and(|into| targets_pattern(into).matches(&target));
        several || self.rules.iter().any(|other| other.settings.table != settings.table && reaches(other))
    }

    /// A truncate empties its table, not those that share its target: the batch without them, which may be nothing, or `None` if there is no
    /// reason to leave any out.
    fn without_shared_truncates(&self, planned: &Planned, batch: &ChangeBatch) -> Result<Option<Option<ChangeBatch>>> {
        // What was landed before this process began may be of a table that has not come since, or is not followed any more: the rules tell.
        let shared = self.targets.get(planned.target.name()).is_some_and(|sources| sources.len() > 1)
            || self.may_be_shared(planned.rule, planned.target.name());
        let truncates = |code: &i8| *code == ChangeType::Truncate.code();
        if !shared || !batch.change_type_codes().iter().any(truncates) {
            return Ok(None);
        }
        let settings = &self.rules[planned.rule].settings;
        let table = batch.relation.name();
        if settings.shared_truncate == SharedTruncate::Fail {
            return Err(Error::data("a table was emptied whose target holds rows of other tables, too")
                .context("table", table)
                .context("target", planned.target.name())
                .remedy(
                    "set shared_truncate: ignore in the rule, so that its rows stay in the target, or give the table a target of its own",
                ));
        }
        tracing::warn!(%table, target = %planned.target.name(), "a table was emptied, and its rows stay in the target that it shares with others");
        let kept: Vec<usize> = (0..batch.rows()).filter(|row| !truncates(&batch.change_type_codes()[*row])).collect();
        apply::selected(batch, &kept).map(Some)
    }
}

/// The targets of tables that are known before their first change.
fn known_targets(rules: &[Rule], known: &[Arc<Relation>]) -> HashMap<RelationName, Sources> {
    let mut targets: HashMap<RelationName, Sources> = HashMap::new();
    for name in known.iter().map(|relation| relation.name()) {
        for (target, rule) in targets_of(rules, name) {
            targets.entry(target).or_default().insert(name.clone(), rule);
        }
    }
    targets
}

/// The targets of a table by their names, with the rules that send it there: its own name if there is no rule.
fn targets_of(rules: &[Rule], name: &RelationName) -> Vec<(RelationName, Option<usize>)> {
    let table = name.to_string();
    let ruled = rules.iter().enumerate().filter(|(_, rule)| rule.settings.table.matches(&table));
    let targets: Vec<_> = ruled
        .map(|(number, rule)| (rule.settings.into.as_ref().map_or_else(|| Ok(name.clone()), |into| target_name(into, name)), number))
        .collect();
    if targets.is_empty() {
        return vec![(name.clone(), None)];
    }
    targets.into_iter().filter_map(|(target, number)| Some((target.ok()?, Some(number)))).collect()
}

/// The targets that an `into` may name.
fn targets_pattern(into: &str) -> Pattern {
    Pattern::new(into.replace("{schema}", "*").replace("{table}", "*"))
}

/// The name of a target: `schema.table` with placeholders.
fn target_name(into: &str, source: &RelationName) -> std::result::Result<RelationName, Fault> {
    let filled = |text: &str| text.replace("{schema}", &source.schema).replace("{table}", &source.table);
    let known = into.replace("{schema}", "schema").replace("{table}", "table");
    if known.contains(['{', '}']) {
        return Err(Fault::new(format!("`into: {into}` has a placeholder that is not known"))
            .help("{schema} and {table} stand for the names of the source"));
    }
    match into.split('.').map(filled).collect::<Vec<_>>().as_slice() {
        [schema, table] if !schema.is_empty() && !table.is_empty() => {
            if schema == RelationName::OWN_SCHEMA {
                return Err(Fault::new(format!("`into: {into}` is in the schema of logweir's own tables")).help("choose another schema"));
            }
            Ok(RelationName::new(schema, table))
        }
        _ => Err(Fault::new(format!("`into: {into}` is not schema.table"))),
    }
}

impl Transform for SqlTransform {
    fn output(&mut self, relation: &Arc<Relation>) -> Result<Vec<Arc<Relation>>> {
        match self.plan(relation) {
            Ok((targets, warnings)) => {
                for warning in warnings {
                    tracing::warn!(rule = warning.rule + 1, "{warning}");
                }
                Ok(targets)
            }
            Err(problems) => {
                let mut error = Error::config("a transform does not fit a table").context("table", relation.name());
                for problem in &problems {
                    error = error.context("rule", problem.rule + 1).context("problem", problem);
                }
                let help = problems.into_iter().find_map(|problem| problem.help);
                Err(error.remedy(help.unwrap_or_else(|| "logweir check shows where in the SQL".to_owned())))
            }
        }
    }

    fn recalls(&self) -> bool {
        // What was set aside of a table comes before its other changes, and is shown as far as the table is.
        self.bad_value == BadValue::Quarantine || self.rules.iter().any(|rule| rule.settings.schema_change == SchemaChange::Null)
    }

    fn recall(&mut self, relation: &Arc<Relation>) -> Vec<Arc<Relation>> {
        self.plan(relation).map_or_else(
            |_| {
                self.remember(relation);
                Vec::new()
            },
            |(targets, _)| targets,
        )
    }

    fn apply(&self, batch: ChangeBatch) -> Result<Vec<ChangeBatch>> {
        let name = batch.relation.name();
        let planned = match self.plans.get(&batch.relation.id()) {
            Some(Plan::Pass) => return Ok(vec![batch]),
            Some(Plan::SetAside) => return Ok(vec![quarantine::reduced(batch, &self.shown)?]),
            Some(Plan::Rules(planned)) => planned,
            None => {
                return Err(Error::internal("a batch came before its relation")
                    .context("table", name)
                    .context("version", batch.relation.version()));
            }
        };
        let batch = cases::resolve(batch)?;
        let mut out = Vec::new();
        for planned in planned {
            match self.without_shared_truncates(planned, &batch)? {
                Some(Some(kept)) => self.apply_rule(planned, &kept, &mut out)?,
                Some(None) => {}
                None => self.apply_rule(planned, &batch, &mut out)?,
            }
        }
        Ok(out)
    }
}

impl fmt::Debug for SqlTransform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rules.iter().map(|rule| rule.settings.table.as_str())).finish()
    }
}
