//! The schemas and tables of a database, with numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::query::catalog::StreamCatalog;
use crate::query::prepare::ClientSession;

/// Numbers below are PostgreSQL's own.
const OID_MIN: u32 = 16_384;

/// The numbers that PostgreSQL gives them.
pub(super) const PG_CATALOG_OID: u32 = 11;
pub(super) const INFORMATION_SCHEMA_OID: u32 = 13_000;
pub(super) const ROLE_OID: u32 = 10;

/// A table.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) oid: u32,
    pub(super) schema_oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    /// One that the engine makes up, which shows as a view.
    pub(super) is_ours: bool,
    /// Found without its schema's name.
    pub(super) is_visible: bool,
}

/// What there is in the database that a client connected to.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) user: String,
    pub(super) process: i32,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) database: String,
    pub(super) schema: String,
    /// Every database and its number.
    pub(super) databases: Vec<(u32, String)>,
    pub(super) schemas: Vec<(u32, String)>,
    pub(super) tables: Vec<Object>,
}

impl Objects {
    pub(super) fn new(database: &str, schema: &str, databases: Vec<String>, catalog: &StreamCatalog, client: &ClientSession) -> Self {
        let found = catalog.objects();
        let names: BTreeSet<&str> = found.iter().map(|(schema, ..)| schema.as_str()).collect();
        let has_default = names.contains(schema);
        let mut numbers = Numbers::default();
        let databases = databases.into_iter().map(|name| (numbers.of(&[&name]), name)).collect();
        let mut schemas: Vec<(u32, String)> = names.iter().map(|schema| (numbers.of(&[database, schema]), (*schema).to_owned())).collect();
        let schema_oids: HashMap<String, u32> = schemas.iter().map(|(oid, name)| (name.clone(), *oid)).collect();
        let tables = found
            .into_iter()
            .map(|(of, name, is_ours)| Object {
                oid: numbers.of(&[database, &of, &name]),
                schema_oid: schema_oids.get(&of).copied().unwrap_or_default(),
                // Where no schema is the default one, the names of all are worth showing.
                is_visible: if has_default { of == schema } else { !is_ours },
                schema: of,
                name,
                is_ours,
            })
            .collect();
        schemas.push((PG_CATALOG_OID, super::PG_CATALOG.to_owned()));
        schemas.push((INFORMATION_SCHEMA_OID, "information_schema".to_owned()));
        Objects {
            user: client.user.clone(),
            process: client.process,
            settings: client.settings.clone(),
            database: database.to_owned(),
            schema: schema.to_owned(),
            databases,
            schemas,
            tables,
        }
    }

    /// The table of a name as `'…'::regclass` takes it.
    pub(super) fn table(&self, name: &str) -> Option<&Object> {
        let parts: Vec<String> = name.split('.').map(|part| part.trim().trim_matches('"').to_owned()).collect();
        match parts.as_slice() {
            [table] => self.tables.iter().find(|object| object.is_visible && object.name == *table),
            [schema, table] => self.tables.iter().find(|object| object.schema == *schema && object.name == *table),
            _ => None,
        }
    }

    pub(super) fn table_of_oid(&self, oid: u32) -> Option<&Object> {
        self.tables.iter().find(|object| object.oid == oid)
    }
}

/// Numbers made of names.
#[derive(Default)]
struct Numbers(BTreeSet<u32>);

impl Numbers {
    fn of(&mut self, parts: &[&str]) -> u32 {
        // FNV-1a.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let folded = u32::try_from((hash ^ (hash >> 32)) & 0x3fff_ffff).unwrap_or(0);
        let mut oid = OID_MIN + folded;
        while !self.0.insert(oid) {
            oid += 1;
        }
        oid
    }
}
