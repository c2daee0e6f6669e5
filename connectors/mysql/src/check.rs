//! Looks for what would stop a stream later, or make it wrong, and says the statement that mends it.
//!
//! Every question is one a replica's account may ask. What the server keeps to itself (a privilege is missing) is itself a
//! finding, not an error: the rest is still looked at.

use logweir_core::{ErrorKind, Finding, LogMark, RelationName, Result, Severity, TableFilter};

use crate::carried;
use crate::catalog_query::{self, Table};
use crate::options::Start;
use crate::place;
use crate::server::{Facts, Flavour, Server, get};
use crate::stream::Replica;

/// Binlogs kept for less than this do not outlast a bad night.
const RETENTION_SECONDS_MIN: u64 = 24 * 60 * 60;

/// Names are listed up to this many, then counted.
const NAMES_MAX: usize = 5;

fn error(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { severity: Severity::Error, code, message: message.into(), remedy: remedy.into() }
}

fn warning(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, code, message: message.into(), remedy: remedy.into() }
}

/// Looks at everything.
pub(crate) async fn check(server: &mut Server, replica: &Replica, filter: &TableFilter, resume: Option<&LogMark>) -> Result<Vec<Finding>> {
    let facts = server.facts().await?;
    let mut findings = settings(&facts, replica, filter);
    findings.extend(privileges(server, &facts).await?);
    if facts.is_on("log_bin") {
        findings.extend(match resume {
            Some(mark) => checkpoint(server, &facts, mark).await?,
            None => start(server, &facts).await?,
        });
    }
    findings.extend(tables(server, &facts, filter).await?);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(findings)
}

/// What the server's variables say.
fn settings(facts: &Facts, replica: &Replica, filter: &TableFilter) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mariadb = facts.flavour == Flavour::Mariadb;
    let value = |name: &str| facts.variable(name).unwrap_or("absent").to_ascii_uppercase();
    if !facts.is_on("log_bin") {
        findings.push(error("log_bin", "the server writes no binlog", "set log_bin in the server's configuration and restart it"));
    }
    if value("binlog_format") != "ROW" && facts.variable("binlog_format").is_some() {
        findings.push(error(
            "binlog_format",
            format!("binlog_format is {}: statements are logged instead of the rows they change", value("binlog_format")),
            "run SET GLOBAL binlog_format = 'ROW', put it into the server's configuration, and let sessions that are open reconnect",
        ));
    }
    let image = value("binlog_row_image");
    // MariaDB's FULL_NODUP leaves out of the row after an update only what stands in the row before it.
    if image != "FULL" && image != "FULL_NODUP" && facts.variable("binlog_row_image").is_some() {
        findings.push(error(
            "binlog_row_image",
            format!(
                "binlog_row_image is {image}: an INSERT that leaves out a column stops the stream, because the default that the column took \
                 is not logged; columns that an update did not change are carried as unchanged, not as values"
            ),
            "run SET GLOBAL binlog_row_image = 'FULL', put it into the server's configuration, and let sessions that are open reconnect",
        ));
    }
    if value("binlog_row_metadata") != "FULL" {
        let (message, remedy) = if facts.variable("binlog_row_metadata").is_some() {
            (
                "binlog_row_metadata is MINIMAL: names and types come from the tables as they are when read, which is wrong for changes \
                 logged before an ALTER TABLE",
                "run SET GLOBAL binlog_row_metadata = 'FULL' and put it into the server's configuration",
            )
        } else {
            (
                "this server cannot log names and types with the rows: they come from the tables as they are when read, which is wrong for \
                 changes logged before an ALTER TABLE",
                "let the stream catch up before each ALTER TABLE, or upgrade to MySQL 8.0 or MariaDB 10.5",
            )
        };
        findings.push(if filter.exact_names {
            let message = format!("{message}; the stream has masks that go by names, and stops at the first change");
            error(
                "binlog_row_metadata",
                message,
                format!("{remedy}; or, if no followed table is altered while the stream is stopped or behind, set mask.names: server"),
            )
        } else {
            warning("binlog_row_metadata", message, remedy)
        });
    }
    if value("binlog_row_value_options").contains("PARTIAL_JSON") {
        findings.push(error(
            "binlog_row_value_options",
            "binlog_row_value_options is PARTIAL_JSON: updates of JSON columns are logged as differences, which cannot be read yet",
            "run SET GLOBAL binlog_row_value_options = '' and let sessions that are open reconnect",
        ));
    }
    if !mariadb && !facts.has_gtids() {
        findings.push(warning(
            "gtid_mode",
            "gtid_mode is OFF: after a failover to another server the stream cannot find its place there",
            "turn it on step by step: SET GLOBAL enforce_gtid_consistency = ON, then gtid_mode = OFF_PERMISSIVE, ON_PERMISSIVE, ON",
        ));
    }
    match facts.variable("server_id").and_then(|id| id.parse::<u32>().ok()) {
        Some(0) => findings.push(error(
            "server_id",
            "the server's server_id is 0: it serves no replicas",
            "run SET GLOBAL server_id = 1 (or another number that no other server has) and put it into the server's configuration",
        )),
        Some(id) if id == replica.server_id => findings.push(error(
            "server_id",
            format!("our server_id {id} is the server's own"),
            "give the source's profile another server_id, or none for one at random",
        )),
        _ => {}
    }
    findings.extend(retention(facts));
    if facts.is_on("encrypt_binlog") || facts.is_on("binlog_encryption") {
        findings.push(warning(
            "binlog_encryption",
            "the server encrypts its binlog files: a live stream reads them in the clear, recorded copies of the files cannot be read",
            "for recordings use the server's own tool: mysqlbinlog --read-from-remote-server --raw",
        ));
    }
    findings
}

/// How long binlogs are kept; 0 is for ever.
fn retention(facts: &Facts) -> Option<Finding> {
    let number = |name: &str| facts.variable(name).and_then(|value| value.parse::<f64>().ok()).filter(|value| *value > 0.0);
    let days = number("expire_logs_days").map(|days| days * 86_400.0);
    let seconds = number("binlog_expire_logs_seconds").or(days)?;
    if seconds >= RETENTION_SECONDS_MIN as f64 {
        return None;
    }
    let rds = ["basedir", "datadir"]
        .iter()
        .any(|name| facts.variable(name).is_some_and(|path| path.contains("/rdsdbbin") || path.contains("/rdsdbdata")));
    let remedy = if rds {
        "run CALL mysql.rds_set_configuration('binlog retention hours', 168)".to_owned()
    } else {
        format!("run {} and put it into the server's configuration", facts.raise_retention())
    };
    Some(warning(
        "binlog_retention",
        format!("the server keeps binlogs for {:.1} hours only: a stream that is down for longer loses its place", seconds / 3600.0),
        remedy,
    ))
}

/// What the account may do.
async fn privileges(server: &mut Server, facts: &Facts) -> Result<Vec<Finding>> {
    const DOING: &str = "could not read our privileges";
    let rows = server.ask(DOING, "SHOW GRANTS", ()).await?;
    let grants = rows.iter().map(|row| get::<String>(row, 0, DOING)).collect::<Result<Vec<_>>>()?;
    let mut findings = missing_privileges(facts, &grants);
    // Roles and clouds have their own ways to give it: the server's answer counts.
    let status = if facts.is_on("log_bin") { server.log_files(facts).await.map(|_| ()) } else { Ok(()) };
    match status {
        Err(denied) if denied.kind() == ErrorKind::Denied => findings.push(error(
            "privilege_replication_client",
            format!("the account may not read positions of the log: {} is missing", facts.monitor_privilege()),
            format!("run GRANT {} ON *.* TO {}", facts.monitor_privilege(), facts.account),
        )),
        Err(other) => return Err(other),
        Ok(()) => {}
    }
    Ok(findings)
}

/// What `SHOW GRANTS` lacks. With roles the list may be longer than what is shown, so then nothing is said.
fn missing_privileges(facts: &Facts, grants: &[String]) -> Vec<Finding> {
    let grants: Vec<String> = grants.iter().map(|grant| grant.to_ascii_uppercase()).collect();
    let global = |names: &[&str]| {
        grants.iter().any(|grant| {
            let Some((list, rest)) = grant.strip_prefix("GRANT ").and_then(|grant| grant.split_once(" ON ")) else { return false };
            rest.starts_with("*.* ") && list.split(',').any(|name| names.contains(&name.trim()))
        })
    };
    let has_roles = grants.iter().any(|grant| grant.starts_with("GRANT ") && !grant.contains(" ON "));
    let mut findings = Vec::new();
    if !has_roles && !global(&["ALL PRIVILEGES", "REPLICATION SLAVE", "SUPER"]) {
        findings.push(error(
            "privilege_replication_slave",
            "the account may not read the binlog: REPLICATION SLAVE is missing",
            format!("run GRANT REPLICATION SLAVE ON *.* TO {}", facts.account),
        ));
    }
    findings
}

/// Whether the log can still be opened where the stream's checkpoint is.
async fn checkpoint(server: &mut Server, facts: &Facts, mark: &LogMark) -> Result<Vec<Finding>> {
    match place::of_mark(server, facts, mark).await {
        Ok(_) => Ok(Vec::new()),
        Err(failure) if failure.is_transient() => Err(failure),
        // Said by the privileges already.
        Err(failure) if failure.kind() == ErrorKind::Denied => Ok(Vec::new()),
        Err(failure) => {
            const REMEDY: &str = "start the stream anew with start: and an empty state";
            Ok(vec![Finding::of_error(Severity::Error, Finding::CHECKPOINT, &failure, REMEDY)])
        }
    }
}

/// Whether the configured start is still there.
async fn start(server: &mut Server, facts: &Facts) -> Result<Vec<Finding>> {
    let start = server.options().start.clone();
    if !matches!(start, Start::Position { .. } | Start::Gtid(_)) {
        return Ok(Vec::new());
    }
    match place::of_start(server, facts, &start).await {
        Ok(_) => Ok(Vec::new()),
        Err(failure) if failure.is_transient() => Err(failure),
        // Said by the privileges already.
        Err(failure) if failure.kind() == ErrorKind::Denied => Ok(Vec::new()),
        Err(failure) => {
            let remedy = failure.get_remedy().unwrap_or("choose another start").to_owned();
            Ok(vec![error("start", format!("the log cannot be opened at the configured start: {}", failure.message()), remedy)])
        }
    }
}

/// What the followed tables say.
async fn tables(server: &mut Server, facts: &Facts, filter: &TableFilter) -> Result<Vec<Finding>> {
    let tables = catalog_query::tables(server, filter).await?;
    if tables.is_empty() {
        let patterns: Vec<&str> = filter.include.iter().map(|pattern| pattern.as_str()).collect();
        return Ok(vec![error(
            "no_tables",
            format!("no table that the account can see fits the patterns: {}", list(&patterns)),
            format!("check tables: include and exclude, and run GRANT SELECT ON *.* TO {} (or on the schemas followed)", facts.account),
        )]);
    }
    let mut findings = Vec::new();
    let mut without_key = Vec::new();
    let mut system_versioned = Vec::new();
    for Table { name, engine, versioned } in &tables {
        if *versioned {
            system_versioned.push(name.to_string());
        }
        if matches!(engine.to_ascii_uppercase().as_str(), "MEMORY" | "BLACKHOLE" | "FEDERATED" | "NDB" | "NDBCLUSTER") {
            findings.push(warning(
                "storage_engine",
                format!("{name} is of the engine {engine}: what happens to it is not all in the binlog"),
                format!("run ALTER TABLE {} ENGINE = InnoDB, or exclude the table", quoted(name)),
            ));
        }
        let Some(shape) = catalog_query::shape(server, facts, name).await? else { continue };
        if shape.key.is_empty() {
            without_key.push(name.to_string());
        }
        if let Err(failure) = carried::relation(name, &shape, filter) {
            findings.push(error(
                "column_type",
                failure.to_string(),
                format!("exclude the column with exclude_columns, or the table {name}"),
            ));
        }
    }
    if !system_versioned.is_empty() {
        let named = facts.variable("binlog_row_metadata").is_some_and(|metadata| metadata.eq_ignore_ascii_case("FULL"));
        findings.push(warning(
            "system_versioning",
            format!(
                "tables with system versioning, of which every version of a row arrives, told apart by the end of its time: {}{}",
                list(&system_versioned),
                if named { "" } else { "; with binlog_row_metadata other than FULL the stream stops at their first change" }
            ),
            "exclude the tables, or read the versions whose time has not ended; and set binlog_row_metadata = FULL",
        ));
    }
    if !without_key.is_empty() {
        findings.push(warning(
            "no_primary_key",
            format!("tables without a primary key, whose rows are told apart by all their values: {}", list(&without_key)),
            "run ALTER TABLE … ADD PRIMARY KEY (…) on each",
        ));
    }
    findings.extend(cascades(server, facts, &tables).await?);
    Ok(findings)
}

/// Foreign keys whose actions change rows that the binlog does not tell of.
///
/// Read from the table's own statement: `information_schema` shows constraints only to those who may do more than SELECT.
async fn cascades(server: &mut Server, facts: &Facts, tables: &[Table]) -> Result<Option<Finding>> {
    const DOING: &str = "could not read the foreign keys";
    // From 9.6 on MySQL logs what a cascade did.
    if facts.flavour == Flavour::Mysql && facts.version >= (9, 6, 0) {
        return Ok(None);
    }
    let mut found = Vec::new();
    for table in tables.iter().filter(|table| table.engine.eq_ignore_ascii_case("InnoDB")) {
        let rows = match server.ask(DOING, &format!("SHOW CREATE TABLE {}", quoted(&table.name)), ()).await {
            Ok(rows) => rows,
            Err(failure) if failure.is_transient() => return Err(failure),
            // Dropped in between, or not ours to see: nothing is known of it.
            Err(_) => continue,
        };
        let Some(row) = rows.first() else { continue };
        let statement: String = get(row, 1, DOING)?;
        found.extend(cascading(&statement).map(|constraint| format!("{} ({constraint})", table.name)));
    }
    Ok((!found.is_empty()).then(|| {
        warning(
            "foreign_key_cascade",
            format!("rows changed by ON DELETE or ON UPDATE CASCADE or SET NULL are not in the binlog: {}", list(&found)),
            "change the constraints to RESTRICT and let the application delete or update the rows itself (MySQL 9.6 logs cascades)",
        )
    }))
}

/// The names of the constraints with such an action: the servers write a constraint per line, and its name in backticks.
fn cascading(statement: &str) -> impl Iterator<Item = &str> {
    statement.lines().filter_map(|line| {
        let (name, rest) = line.trim().strip_prefix("CONSTRAINT `")?.split_once("` FOREIGN KEY ")?;
        // Behind the columns, whose names are in parentheses too.
        let (_, actions) = rest.rsplit_once(')')?;
        let changes = ["DELETE", "UPDATE"]
            .iter()
            .any(|verb| ["CASCADE", "SET NULL"].iter().any(|action| actions.contains(&format!("ON {verb} {action}"))));
        changes.then_some(name)
    })
}

fn quoted(name: &RelationName) -> String {
    format!("`{}`.`{}`", name.schema.replace('`', "``"), name.table.replace('`', "``"))
}

fn list<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_MAX).map(AsRef::as_ref).collect();
    match names.len().checked_sub(NAMES_MAX) {
        Some(more) if more > 0 => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(variables: &[(&str, &str)]) -> Vec<&'static str> {
        let facts = Facts::of(variables, "weir@%");
        settings(&facts, &Replica { server_id: 7, uuid: String::new() }, &TableFilter::all()).iter().map(|finding| finding.code).collect()
    }

    const FINE: [(&str, &str); 8] = [
        ("version", "8.4.0"),
        ("log_bin", "ON"),
        ("binlog_format", "ROW"),
        ("binlog_row_image", "FULL"),
        ("binlog_row_metadata", "FULL"),
        ("gtid_mode", "ON"),
        ("server_id", "1"),
        ("binlog_expire_logs_seconds", "2592000"),
    ];

    fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
        let mut variables: Vec<_> = FINE.into_iter().filter(|(other, _)| *other != name).collect();
        variables.push((name, value));
        variables
    }

    #[test]
    fn each_setting_has_its_finding() {
        assert!(codes(&FINE).is_empty());
        for (name, value, code) in [
            ("log_bin", "OFF", "log_bin"),
            ("binlog_format", "MIXED", "binlog_format"),
            ("binlog_row_image", "MINIMAL", "binlog_row_image"),
            ("binlog_row_metadata", "MINIMAL", "binlog_row_metadata"),
            ("binlog_row_value_options", "PARTIAL_JSON", "binlog_row_value_options"),
            ("gtid_mode", "OFF", "gtid_mode"),
            ("server_id", "0", "server_id"),
            ("server_id", "7", "server_id"),
            ("binlog_expire_logs_seconds", "3600", "binlog_retention"),
            ("binlog_encryption", "ON", "binlog_encryption"),
        ] {
            assert_eq!(codes(&with(name, value)), [code], "{name} = {value}");
        }
        assert!(codes(&with("binlog_expire_logs_seconds", "0")).is_empty(), "0 keeps for ever");
    }

    #[test]
    fn privileges_are_read_from_grants() {
        let facts = Facts::of(&FINE, "weir@10.%");
        let missing = |grants: &[&str]| {
            let grants: Vec<String> = grants.iter().map(|grant| (*grant).to_owned()).collect();
            missing_privileges(&facts, &grants).len()
        };
        assert_eq!(missing(&["GRANT SELECT, REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `weir`@`%`"]), 0);
        assert_eq!(missing(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"]), 0);
        assert_eq!(missing(&["GRANT USAGE ON *.* TO `weir`@`%`", "GRANT ALL PRIVILEGES ON `shop`.* TO `weir`@`%`"]), 1);
        assert_eq!(missing(&["GRANT USAGE ON *.* TO `weir`@`%`", "GRANT `replicator`@`%` TO `weir`@`%`"]), 0);
    }

    #[test]
    fn cascading_constraints_are_found_by_their_actions() {
        let statement = "CREATE TABLE `c` (\n  `id` int(11) NOT NULL COMMENT 'ON DELETE CASCADE',\n  \
                         CONSTRAINT `one` FOREIGN KEY (`a`) REFERENCES `p` (`id`) ON DELETE CASCADE,\n  \
                         CONSTRAINT `two` FOREIGN KEY (`b`) REFERENCES `p` (`id`),\n  \
                         CONSTRAINT `three` FOREIGN KEY (`c`) REFERENCES `p` (`id`) ON DELETE NO ACTION ON UPDATE SET NULL\n) ENGINE=InnoDB";
        assert_eq!(cascading(statement).collect::<Vec<_>>(), ["one", "three"]);
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(list(&["a", "b"]), "a, b");
        assert_eq!(list(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }
}
