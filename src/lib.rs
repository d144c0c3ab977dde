//! Sluicegate: a data plane for appliances behind a gateway load balancer.
//!
//! The modules in the order in which a packet meets them:
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "the fence")]
pub mod dpdk;
pub mod wire;
pub mod packet;
pub mod flow;
pub mod stream;
pub mod event;
pub mod path;
pub mod stage;
pub mod stages;
pub mod gateway;
pub mod config;
pub mod mgmt;
pub mod app;
pub mod doctor;
pub mod nics;
#[cfg(feature = "program")]
pub mod lab;
#[cfg(feature = "program")]
pub mod cli;
pub mod traffic;

pub use app::App;
