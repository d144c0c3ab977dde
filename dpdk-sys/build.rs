//! pkg-config finds DPDK, bindgen reads its headers through an allow-list, cc compiles the shim.
//!
//! Everything is generated from the headers that are installed: struct layouts differ between 22.11, 24.11 and 25.11.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fmt};

/// Functions that have a symbol of their own.
const FUNCTIONS: &[&str] = &[
    // EAL
    "rte_eal_(init|cleanup|has_hugepages|iova_mode|process_type|get_runtime_dir|remote_launch|wait_lcore|get_lcore_state)",
    "rte_(get_main_lcore|get_next_lcore|lcore_count|lcore_is_enabled|lcore_to_cpu_id|lcore_to_socket_id|lcore_has_role)",
    "rte_(socket_count|socket_id_by_idx|socket_id|thread_register|thread_unregister)",
    "rte_(version|strerror|get_tsc_hz|openlog_stream|log_set_global_level|log_set_level_regexp)",
    // memory
    "rte_(zmalloc_socket|free|malloc_get_socket_stats)",
    "rte_pktmbuf_(pool_create|pool_create_by_ops|free_bulk)",
    "rte_mbuf_user_mempool_ops",
    "rte_mempool_(avail_count|free|lookup)",
    "rte_ring_(create|free|lookup)",
    // ports
    "rte_dev_(probe|remove)",
    "rte_eth_dev_(count_avail|get_port_by_name|get_name_by_port|socket_id|is_valid_port|info_get|configure|start|stop)",
    "rte_eth_dev_(reset|close|set_mtu|get_mtu|adjust_nb_rx_tx_desc|callback_register|callback_unregister)",
    "rte_eth_dev_(rss_hash_conf_get|rss_hash_update|rss_reta_query|rss_reta_update)",
    "rte_eth_(find_next|macaddr_get|rx_queue_setup|tx_queue_setup|promiscuous_enable|promiscuous_get|allmulticast_enable)",
    "rte_eth_(link_get_nowait|stats_get|stats_reset|xstats_get|xstats_get_names|xstats_reset)",
    "rte_eth_from_rings",
    // what drivers do now and then
    "rte_timer_(subsystem_init|manage)",
    // classification
    "rte_acl_(create|free|reset|add_rules|build|classify|classify_alg|dump|list_dump|set_ctx_classify|find_existing)",
    // prefixes
    "rte_fib_(create|free|add|lookup_bulk)",
    // this crate's shim
    "sg_.*",
];

const TYPES: &[&str] = &[
    "rte_eth_(conf|dev_info|rxconf|txconf|stats|xstat|xstat_name|link|rss_conf|rss_reta_entry64|event_type)",
    "rte_ether_addr",
    "rte_malloc_socket_stats",
    "rte_acl_(param|config|field|field_def|rule|rule_data|ctx|classify_alg)",
    "rte_fib_(conf|type|dir24_8_nh_sz)",
    "rte_lcore_state_t",
];

const CONSTANTS: &[&str] = &[
    "RTE_MAX_(LCORE|ETHPORTS|QUEUES_PER_PORT)",
    "RTE_ETH_(NAME_MAX_LEN|RETA_GROUP_SIZE|LINK_(UP|DOWN|SPEED_.*)|SPEED_NUM_.*)",
    "RTE_ETH_MQ_(RX|TX)_(NONE|RSS)",
    "RTE_ETH_EVENT_(INTR_LSC|INTR_RESET|INTR_RMV)",
    "RTE_ETHER_.*",
    "RTE_MEMPOOL_CACHE_MAX_SIZE",
    "RTE_RING_NAMESIZE",
    "RTE_LOG_(EMERG|ALERT|CRIT|ERR|WARNING|NOTICE|INFO|DEBUG)",
    "RTE_ACL_.*",
    "RING_F_.*",
    "SG_.*",
];

/// A message for the person who builds; `main` prints it as it is.
struct Stop(String);

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn main() -> Result<(), Stop> {
    for path in ["build.rs", "shim.c", "shim.h"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let flags = find_dpdk()?;
    bind(&flags)?;
    compile_shim(&flags)
}

/// Tells cargo what to link, tells dependents the version, and returns every flag that pkg-config has for a compiler.
fn find_dpdk() -> Result<Vec<String>, Stop> {
    let dpdk = pkg_config::Config::new().atleast_version("22.11").probe("libdpdk").map_err(|error| {
        Stop(match error {
            pkg_config::Error::Command { .. } => {
                "pkg-config is not there, and without it DPDK cannot be found: apt-get install pkg-config".into()
            }
            pkg_config::Error::Failure { .. } | pkg_config::Error::ProbeFailure { .. } => {
                "DPDK 22.11 or later with its headers was not found by pkg-config.\n  Debian, Ubuntu: \
                 apt-get install libdpdk-dev\n  A DPDK of your own: PKG_CONFIG_PATH=<prefix>/lib/<arch>/pkgconfig\n  \
                 Without DPDK (soft ports only): cargo build --no-default-features --features program"
                    .into()
            }
            other => other.to_string(),
        })
    })?;
    // Of the drivers only this one is called by name; pkg-config leaves all of them to the EAL, which loads them itself.
    println!("cargo::rustc-link-lib=rte_net_ring");
    println!("cargo::metadata=version={}", dpdk.version);

    // The crate keeps only -I, -D and -L; DPDK also needs `-include rte_config.h` and `-march=`.
    let tool = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = Command::new(tool)
        .args(["--cflags", "libdpdk"])
        .output()
        .map_err(|error| Stop(format!("pkg-config --cflags libdpdk: {error}")))?;
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().map(String::from).collect())
}

fn bind(flags: &[String]) -> Result<(), Stop> {
    // Without libclang bindgen panics; it must be found before anything else is said.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let clang = std::panic::catch_unwind(bindgen::clang_version);
    std::panic::set_hook(hook);
    if clang.is_err() {
        return Err(Stop(
            "libclang was not found; bindgen reads DPDK's headers with it: apt-get install libclang-dev \
             (elsewhere: set LIBCLANG_PATH to the folder of libclang.so)"
                .into(),
        ));
    }

    let mut builder = bindgen::Builder::default()
        .header("shim.h")
        .clang_args(flags)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .wrap_unsafe_ops(true)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(true)
        .layout_tests(false)
        .generate_comments(false)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        // Its fields change names between releases: seen through `sluicegate::dpdk::raw::Header` only (see shim.c).
        .blocklist_type("rte_mbuf")
        .opaque_type("rte_mempool|rte_ring|rte_device|rte_acl_ctx|rte_mempool_.*");
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    for name in CONSTANTS {
        builder = builder.allowlist_var(name);
    }
    let bindings = builder.generate().map_err(|error| {
        Stop(format!(
            "DPDK's headers could not be read: {error}\nIf stddef.h or another system header is missing: \
             apt-get install libclang-dev libc6-dev"
        ))
    })?;
    let file = out_dir().join("bindings.rs");
    bindings.write_to_file(&file).map_err(|error| Stop(format!("{}: {error}", file.display())))
}

fn compile_shim(flags: &[String]) -> Result<(), Stop> {
    let mut build = cc::Build::new();
    build.file("shim.c").warnings(true).extra_warnings(true).std("gnu11").opt_level(3);
    for flag in flags {
        build.flag(flag);
    }
    // DPDK's inline functions are not free of either.
    build.flag_if_supported("-Wno-deprecated-declarations").flag_if_supported("-Wno-unused-parameter");
    build.try_compile("sluicegate_shim").map_err(|error| {
        Stop(format!(
            "shim.c did not compile: {error}\nWithout a C compiler: apt-get install gcc libc6-dev. \
             An assertion on struct rte_mbuf that fails means a DPDK with another mbuf layout: please report it."
        ))
    })
}

fn out_dir() -> PathBuf {
    env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default()
}
