//! What a server and our account say of themselves.

use std::collections::HashMap;

use logweir_core::Result;

use crate::catalog::{ask, rows};
use crate::options::PostgresOptions;
use crate::quote::literal;
use crate::wire::Connection;

/// Who runs the server: settings are changed in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    /// Whoever may edit its files.
    Own,
    Rds,
    Aurora,
    CloudSql,
    AlloyDb,
    Azure,
    Neon,
}

/// What a server and our account say of themselves.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// 150007 is 15.7.
    pub(super) version: u32,
    pub(super) host: Host,
    /// The account, quoted where it must be.
    pub(super) user: String,
    /// The database, likewise.
    pub(super) database: String,
    /// The configured publication's name, likewise.
    pub(super) publication: String,
    /// May open a replication connection.
    pub(super) replication: bool,
    /// May make objects in the database.
    pub(super) may_create: bool,
    /// True for a standby.
    pub(super) in_recovery: bool,
    /// Standbys and readers of slots that are connected now.
    pub(super) senders: u64,
    settings: HashMap<String, Setting>,
}

#[derive(Debug, Clone)]
struct Setting {
    value: String,
    unit: String,
}

impl Facts {
    /// Before this, pgoutput and the catalog are not what we know; and nobody maintains it.
    pub(super) const VERSION_MIN: u32 = 120_000;

    pub(super) async fn learn(connection: &mut Connection, options: &PostgresOptions) -> Result<Facts> {
        const ABOUT: &str = "what the account may do";
        let sql = format!(
            "SELECT pg_catalog.quote_ident(current_user), pg_catalog.quote_ident(pg_catalog.current_database()), pg_catalog.quote_ident({}), \
             r.rolsuper, r.rolreplication, pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'), \
             pg_catalog.pg_is_in_recovery(), (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication), \
             EXISTS (SELECT FROM pg_catalog.pg_roles o WHERE o.rolname IN ('rds_replication', 'rds_superuser') \
             AND pg_catalog.pg_has_role(o.oid, 'MEMBER')) \
             FROM pg_catalog.pg_roles r WHERE r.rolname = current_user",
            literal(&options.publication)
        );
        let answer = ask(connection, ABOUT, &sql).await?;
        let row = rows(&answer, ABOUT).next();
        let row = row.ok_or_else(|| logweir_core::Error::corrupt("the server does not know the account that asks"))?;
        let superuser = row.flag(3)?;
        let mut facts = Facts {
            version: connection.version(),
            host: Host::Own,
            user: row.text(0)?.to_owned(),
            database: row.text(1)?.to_owned(),
            publication: row.text(2)?.to_owned(),
            replication: superuser || row.flag(4)? || row.flag(8)?,
            may_create: superuser || row.flag(5)?,
            in_recovery: row.flag(6)?,
            senders: row.number(7)?,
            settings: settings(connection).await?,
        };
        facts.host = host(connection, &mut facts.settings).await?;
        Ok(facts)
    }

    /// A setting as it holds for our sessions; `None` if the server has no such, or does not show it to us.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(|setting| setting.value.as_str())
    }

    pub(super) fn is_on(&self, name: &str) -> bool {
        self.setting(name) == Some("on")
    }

    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.setting(name)?.parse().ok()
    }

    /// A setting that is a size, in bytes; `None` if it is -1, which is without bound.
    pub(super) fn size(&self, name: &str) -> Option<u64> {
        let setting = self.settings.get(name)?;
        let unit: u64 = match setting.unit.as_str() {
            "B" | "" => 1,
            "kB" => 1 << 10,
            "8kB" => 8 << 10,
            "MB" => 1 << 20,
            "GB" => 1 << 30,
            _ => return None,
        };
        u64::try_from(setting.value.parse::<i64>().ok()?).ok()?.checked_mul(unit)
    }

    /// A setting that is a duration, in milliseconds.
    pub(super) fn milliseconds(&self, name: &str) -> Option<u64> {
        let setting = self.settings.get(name)?;
        let unit: u64 = match setting.unit.as_str() {
            "ms" => 1,
            "s" => 1_000,
            "min" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        u64::try_from(setting.value.parse::<i64>().ok()?).ok()?.checked_mul(unit)
    }

    /// How a setting is changed that takes effect with a restart.
    pub(super) fn change_and_restart(&self, name: &str, value: &str) -> String {
        match self.host {
            Host::Own => format!("run ALTER SYSTEM SET {name} = '{value}' and restart the server"),
            Host::Rds => format!("set {name} = {value} in the DB parameter group and reboot the instance"),
            Host::Aurora => format!("set {name} = {value} in the DB cluster parameter group and reboot the writer"),
            Host::CloudSql | Host::AlloyDb => format!("set the database flag {name} = {value}, which restarts the instance"),
            Host::Azure => format!("set the server parameter {name} = {value} and restart the server"),
            Host::Neon => format!("set {name} = {value} in the project's settings"),
        }
    }

    /// How a setting is changed that takes effect at once.
    pub(super) fn change(&self, name: &str, value: &str) -> String {
        match self.host {
            Host::Own => format!("run ALTER SYSTEM SET {name} = '{value}'; SELECT pg_reload_conf()"),
            Host::Rds => format!("set {name} = {value} in the DB parameter group"),
            Host::Aurora => format!("set {name} = {value} in the DB cluster parameter group"),
            Host::CloudSql | Host::AlloyDb => format!("set the database flag {name} = {value}"),
            Host::Azure => format!("set the server parameter {name} = {value}"),
            Host::Neon => format!("set {name} = {value} in the project's settings"),
        }
    }

    #[cfg(test)]
    pub(super) fn of(version: u32, host: Host, settings: &[(&str, &str, &str)]) -> Facts {
        let setting = |(name, value, unit): &(&str, &str, &str)| {
            ((*name).to_owned(), Setting { value: (*value).to_owned(), unit: (*unit).to_owned() })
        };
        Facts {
            version,
            host,
            user: "weir".to_owned(),
            database: "shop".to_owned(),
            publication: "logweir_shop".to_owned(),
            replication: true,
            may_create: true,
            in_recovery: false,
            senders: 0,
            settings: settings.iter().map(setting).collect(),
        }
    }
}

async fn settings(connection: &mut Connection) -> Result<HashMap<String, Setting>> {
    const ABOUT: &str = "the server's settings";
    let answer = ask(connection, ABOUT, "SELECT name, setting, unit FROM pg_catalog.pg_settings").await?;
    let setting = |row: crate::catalog::Row<'_>| {
        let (value, unit) = (row.get(1).unwrap_or_default(), row.get(2).unwrap_or_default());
        Ok((row.text(0)?.to_owned(), Setting { value: value.to_owned(), unit: unit.to_owned() }))
    };
    rows(&answer, ABOUT).map(setting).collect()
}

/// Tells whose server it is by the settings that only theirs have, and adds these to the known ones.
async fn host(connection: &mut Connection, known: &mut HashMap<String, Setting>) -> Result<Host> {
    const ABOUT: &str = "who runs the server";
    const MARKS: [(&str, Host); 6] = [
        ("rds.logical_replication", Host::Rds),
        ("rds.extensions", Host::Rds),
        ("cloudsql.logical_decoding", Host::CloudSql),
        ("alloydb.logical_decoding", Host::AlloyDb),
        ("azure.extensions", Host::Azure),
        ("neon.tenant_id", Host::Neon),
    ];
    let list = MARKS.map(|(name, _)| format!("pg_catalog.current_setting('{name}', true)"));
    let sql = format!("SELECT pg_catalog.to_regproc('pg_catalog.aurora_version'), {}", list.join(", "));
    // What may not be read is there, but then nobody here can tell what.
    let Ok(answer) = ask(connection, ABOUT, &sql).await else { return Ok(Host::Own) };
    let mut found = None;
    for row in rows(&answer, ABOUT) {
        for (i, (name, host)) in MARKS.iter().enumerate() {
            if let Some(value) = row.get(i + 1) {
                found = found.or(Some(*host));
                known.insert((*name).to_owned(), Setting { value: value.to_owned(), unit: String::new() });
            }
        }
        if row.get(0).is_some() {
            found = Some(Host::Aurora);
        }
    }
    Ok(found.unwrap_or(Host::Own))
}
