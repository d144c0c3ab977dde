//! TOML -> `Config` -> [`Plan`]. Every check is here; code that holds a [`Plan`] does not check again.

mod plan;
mod problem;
mod settings;

pub use plan::{
    EalPlan, Idle, LcorePlan, Memory, OnError, Plan, PoolPlan, PortPlan, QueueCount, StagePlan, Tunnel,
    VerifyChecksum, WorkerPlan,
};
pub use problem::{Origin, Problem};
pub use settings::Settings;
