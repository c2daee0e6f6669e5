//! What the tests of logweir stand on: real servers, workloads, the comparison with the source, conformance suites
//! and the simulation.

pub mod engine;
pub mod every_type;
pub mod oracle;
pub mod postgres;
pub mod servers;
pub mod sim;
pub mod suite;
pub mod workload;
