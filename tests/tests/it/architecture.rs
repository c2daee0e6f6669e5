//! Who may know whom: `server → runtime | flight → pgwire → sql | connectors → core`, siblings never each other, DataFusion in `sql` alone,
//! sockets in the connectors, the endpoints and the server alone.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");

/// Each crate of the workspace and the crates that it names as (not dev- or build-) dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().manifest_path(MANIFEST).no_deps().exec().unwrap();
    let packages = metadata.packages.into_iter();
    let packages = packages.map(|package| {
        let normal = package.dependencies.into_iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
        (package.name.to_string(), normal.map(|dependency| dependency.name).collect())
    });
    packages.collect()
}

const CONNECTORS: [&str; 3] = ["logweir-mysql", "logweir-postgres", "logweir-files"];

fn ours(dependencies: &BTreeSet<String>) -> Vec<&str> {
    dependencies.iter().map(String::as_str).filter(|name| name.starts_with("logweir")).collect()
}

#[test]
fn arrows_point_towards_core() {
    let dependencies = dependencies();
    assert_eq!(ours(&dependencies["logweir-core"]), [] as [&str; 0]);
    for name in CONNECTORS.into_iter().chain(["logweir-runtime", "logweir-sql"]) {
        assert_eq!(ours(&dependencies[name]), ["logweir-core"], "{name} knows core and none of its siblings");
    }
    assert_eq!(ours(&dependencies["logweir-pgwire"]), ["logweir-core", "logweir-sql"], "the endpoint serves what sql answers");
    let flight = ["logweir-core", "logweir-pgwire", "logweir-sql"];
    assert_eq!(ours(&dependencies["logweir-flight"]), flight, "it has the users and the places of the other endpoint");
}

#[test]
fn every_crate_has_its_place() {
    let known = [
        "logweir",
        "logweir-benches",
        "logweir-core",
        "logweir-files",
        "logweir-flight",
        "logweir-mysql",
        "logweir-pgwire",
        "logweir-postgres",
        "logweir-runtime",
        "logweir-sql",
        "logweir-tests",
    ];
    let found = dependencies().into_keys().collect::<Vec<_>>();
    assert_eq!(found, known, "a new crate needs a line in this file's tests, and one in ARCHITECTURE.md");
}

#[test]
fn datafusion_stays_in_sql() {
    for (name, dependencies) in dependencies() {
        let found = dependencies.iter().any(|dependency| dependency.starts_with("datafusion"));
        assert!(!found || ["logweir-sql", "logweir", "logweir-benches"].contains(&name.as_str()), "{name} depends on DataFusion");
    }
}

#[test]
fn sockets_stay_in_connectors_and_server() {
    let dependencies = dependencies();
    let sockets = ["axum", "hyper", "mysql_async", "reqwest", "rustls", "tokio-postgres", "tokio-rustls", "tonic"];
    for name in ["logweir-core", "logweir-runtime", "logweir-sql"] {
        for socket in sockets {
            assert!(!dependencies[name].contains(socket), "{name} depends on {socket}");
        }
    }
}

#[test]
fn the_core_starts_no_tasks_and_reaches_no_store() {
    let metadata = MetadataCommand::new().manifest_path(MANIFEST).no_deps().exec().unwrap();
    let core = metadata.packages.iter().find(|package| package.name == "logweir-core").unwrap();
    let normal = core.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
    for dependency in normal {
        assert!(!["rayon", "object_store", "tokio-util"].contains(&dependency.name.as_str()), "core depends on {}", dependency.name);
        // Semaphores, and the sleep of the system clock; a runtime and the network are not the core's.
        let allowed = |feature: &String| ["sync", "time"].contains(&feature.as_str());
        assert!(dependency.name != "tokio" || dependency.features.iter().all(allowed), "core uses {:?} of tokio", dependency.features);
    }
}

#[test]
fn one_version_of_the_formats() {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")).unwrap();
    for name in ["arrow-array", "arrow-schema", "parquet", "object_store", "datafusion", "rustls"] {
        let count = lock.matches(&format!("name = \"{name}\"\n")).count();
        assert_eq!(count, 1, "{name} is in the dependency tree {count} times");
    }
}
