//! Packet classification by `rte_acl`: many rules, a batch of keys, the best rule for each.
//!
//! A key is `KEY` bytes; a [`Field`] is a part of it, and an [`Entry`] says one condition per field. Entries are compiled
//! once ([`Acl::build`], seconds for many of them); after that the classifier never changes, and any number of threads
//! may ask it at once. It lives in EAL memory.
//!
//! # What `rte_acl` demands, and [`Acl::build`] checks
//!
//! Its inner loop reads the first field as one byte and then four bytes of the key at a time. So the first field has
//! size 1, the others are grouped into runs of four bytes, and each run lies inside the key: then no search reads past it.

use std::ffi::{CString, c_int};
use std::num::NonZeroU32;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use dpdk_sys as sys;

use super::eal::Eal;
use super::{BURST, Errno, Error};

/// Most categories of one classifier (`RTE_ACL_MAX_CATEGORIES`).
pub const MAX_CATEGORIES: usize = 16;

/// Largest priority of an entry (`RTE_ACL_MAX_PRIORITY`).
pub const MAX_PRIORITY: u32 = (1 << 29) - 1;

/// Bytes that `rte_acl` reads at a time.
const GROUP: usize = 4;

/// What a condition on a field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first bits are those of the value: (value, number of bits).
    Prefix,
    /// Between two values: (low, high).
    Range,
    /// The bits of the mask are those of the value: (value, mask).
    Bits,
}

/// A part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// What entries say of it.
    pub kind: Kind,
    /// Bytes: 1, 2 or 4, in network order in the key.
    pub size: u8,
    /// Which run of four bytes it belongs to; the first field is alone in run 0.
    pub group: u8,
    /// Bytes from the start of the key.
    pub offset: u8,
}

/// One condition per field, and the answer for keys that meet them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<const FIELDS: usize> {
    /// A bit for each category in which the entry competes.
    pub categories: u32,
    /// 1 to [`MAX_PRIORITY`]; the highest wins, in each category.
    pub priority: u32,
    /// What [`Acl::classify`] answers.
    pub answer: NonZeroU32,
    /// In host order; what the two numbers mean depends on [`Field::kind`].
    pub conditions: [(u32, u32); FIELDS],
}

/// A compiled classifier for keys of `KEY` bytes.
#[derive(Debug)]
pub struct Acl<const KEY: usize> {
    /// Keeps the memory that it lives in (S4).
    _eal: Eal,
    context: NonNull<sys::rte_acl_ctx>,
    categories: usize,
    algorithm: &'static str,
}

// SAFETY: after `build` nothing changes the context; `rte_acl_classify` only reads it, and freeing is not bound to a thread.
unsafe impl<const KEY: usize> Send for Acl<KEY> {}
// SAFETY: as above; DPDK documents concurrent classification on one context.
unsafe impl<const KEY: usize> Sync for Acl<KEY> {}

/// `struct rte_acl_rule` with its fields: C has a flexible array there.
#[repr(C)]
struct Row<const FIELDS: usize> {
    data: sys::rte_acl_rule_data,
    fields: [sys::rte_acl_field; FIELDS],
}

const _: () = assert!(std::mem::offset_of!(Row<1>, fields) == size_of::<sys::rte_acl_rule>());

impl<const KEY: usize> Acl<KEY> {
    /// Compiles the entries. `categories` is 1 or a multiple of 4 up to [`MAX_CATEGORIES`].
    ///
    /// Fails without an EAL, and, with a remedy, if its memory does not suffice.
    pub fn build<const FIELDS: usize>(
        fields: &[Field; FIELDS],
        entries: &[Entry<FIELDS>],
        categories: usize,
    ) -> Result<Self, Error> {
        check::<KEY>(fields, entries.len(), categories)?;
        let mut acl = Self::create::<FIELDS>(entries.len(), categories)?;
        let rows: Vec<Row<FIELDS>> = entries.iter().map(|entry| row(fields, entry)).collect();
        // SAFETY: the context is alive and only ours; `rows` are `entries.len()` rules of the size told to create.
        let code =
            unsafe { sys::rte_acl_add_rules(acl.context.as_ptr(), rows.as_ptr().cast(), rows.len() as u32) };
        succeeded(code, entries.len(), "add the entries of")?;
        let config = config(fields, categories);
        // SAFETY: the context is alive and only ours; the configuration was checked above.
        let code = unsafe { sys::rte_acl_build(acl.context.as_ptr(), &config) };
        succeeded(code, entries.len(), "compile")?;
        acl.choose_algorithm();
        Ok(acl)
    }

    fn create<const FIELDS: usize>(entries: usize, categories: usize) -> Result<Self, Error> {
        let eal = Eal::running().ok_or_else(|| {
            Error::refused(
                "rte_acl needs a running EAL",
                "start it first; without one the rules can be tried in turn",
            )
        })?;
        // A name that exists would give us somebody else's context.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("sluicegate-acl-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).unwrap_or_default(); // has no NUL
        let parameters = sys::rte_acl_param {
            name: name.as_ptr(),
            socket_id: sys::SG_SOCKET_ANY,
            rule_size: size_of::<Row<FIELDS>>() as u32,
            max_rule_num: entries as u32,
        };
        // SAFETY: the EAL runs; the parameters and the name live through the call, which copies them.
        let context = unsafe { sys::rte_acl_create(&parameters) };
        match NonNull::new(context) {
            Some(context) => Ok(Acl { _eal: eal, context, categories, algorithm: "" }),
            // SAFETY: reads the calling thread's errno.
            None => Err(failed(Errno(unsafe { sys::sg_errno() }), entries, "make")),
        }
    }

    /// Takes the widest search that the CPU and the EAL's `--force-max-simd-bitwidth` allow.
    fn choose_algorithm(&mut self) {
        const CHOICE: [(&str, sys::rte_acl_classify_alg); 7] = [
            ("AVX-512, 32 at a time", sys::RTE_ACL_CLASSIFY_AVX512X32),
            ("AVX-512, 16 at a time", sys::RTE_ACL_CLASSIFY_AVX512X16),
            ("AVX2", sys::RTE_ACL_CLASSIFY_AVX2),
            ("SSE", sys::RTE_ACL_CLASSIFY_SSE),
            ("NEON", sys::RTE_ACL_CLASSIFY_NEON),
            ("AltiVec", sys::RTE_ACL_CLASSIFY_ALTIVEC),
            ("scalar", sys::RTE_ACL_CLASSIFY_SCALAR),
        ];
        for (name, algorithm) in CHOICE {
            // SAFETY: the context is alive and only ours; what the platform lacks is refused with ENOTSUP.
            if unsafe { sys::rte_acl_set_ctx_classify(self.context.as_ptr(), algorithm) } == 0 {
                self.algorithm = name;
                return;
            }
        }
    }

    /// Answers for a batch of keys (at most [`BURST`]): `categories` answers per key, 0 where no entry matches.
    ///
    /// Keys and answers that have no counterpart are left alone.
    #[inline]
    pub fn classify(&self, keys: &[[u8; KEY]], answers: &mut [u32]) {
        let count = keys.len().min(answers.len() / self.categories).min(BURST);
        let mut places = [std::ptr::null::<u8>(); BURST];
        for (place, key) in places.iter_mut().zip(keys) {
            *place = key.as_ptr();
        }
        if count == 0 {
            return; // rte_acl expects at least one
        }
        // SAFETY: the first `count` places are keys of KEY bytes, and no group that a search reads leaves the key
        // (`check`); `answers` holds `count * categories` numbers; the context was compiled for as many categories.
        let code: c_int = unsafe {
            sys::rte_acl_classify(
                self.context.as_ptr(),
                places.as_mut_ptr(),
                answers.as_mut_ptr(),
                count as u32,
                self.categories as u32,
            )
        };
        // It refuses only a number of categories that `check` refuses too.
        debug_assert_eq!(code, 0);
    }

    /// Answers per key.
    #[inline(always)]
    pub fn categories(&self) -> usize {
        self.categories
    }

    /// The search in use.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }
}

impl<const KEY: usize> Drop for Acl<KEY> {
    fn drop(&mut self) {
        // SAFETY: made by `create`, freed once; the EAL still runs (`_eal`, S4).
        unsafe { sys::rte_acl_free(self.context.as_ptr()) }
    }
}

/// Bytes in use in the EAL's heaps of all NUMA nodes; 0 without an EAL.
pub fn heap_in_use() -> u64 {
    let Some(_eal) = Eal::running() else { return 0 };
    // SAFETY: the EAL runs; these calls read its tables; a node without a heap is refused and adds nothing.
    unsafe {
        (0..sys::rte_socket_count())
            .map(|index| {
                let mut stats = sys::rte_malloc_socket_stats::default();
                match sys::rte_malloc_get_socket_stats(sys::rte_socket_id_by_idx(index), &mut stats) {
                    0 => stats.heap_allocsz_bytes as u64,
                    _ => 0,
                }
            })
            .sum()
    }
}

/// The layout that the module documentation demands.
fn check<const KEY: usize>(fields: &[Field], entries: usize, categories: usize) -> Result<(), Error> {
    let inside = |field: &Field| {
        let first = fields.iter().filter(|f| f.group == field.group).map(|f| f.offset).min().unwrap_or(0);
        let end = first as usize + GROUP;
        end <= KEY && field.offset as usize + field.size as usize <= end && matches!(field.size, 1 | 2 | 4)
    };
    let whole = |group: u8| {
        let size: usize = fields.iter().filter(|f| f.group == group).map(|f| f.size as usize).sum();
        size == if group == 0 { 1 } else { GROUP }
    };
    let in_order = fields.first().is_some_and(|first| first.group == 0)
        && fields
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if b.group == a.group || b.group == a.group + 1));
    let fine = in_order
        && fields.len() <= sys::RTE_ACL_MAX_FIELDS as usize
        && fields.iter().all(|field| inside(field) && whole(field.group))
        && (categories == 1 || (categories.is_multiple_of(4) && (4..=MAX_CATEGORIES).contains(&categories)))
        && (1..=u32::MAX as usize).contains(&entries);
    if fine {
        return Ok(());
    }
    let what = format!(
        "{entries} entries of {} fields in a key of {KEY} bytes, {categories} categories",
        fields.len()
    );
    Err(Error::refused(format!("no classifier can be made of {what}"), "this is a mistake in the program"))
}

fn config(fields: &[Field], categories: usize) -> sys::rte_acl_config {
    let mut config = sys::rte_acl_config {
        num_categories: categories as u32,
        num_fields: fields.len() as u32,
        ..Default::default()
    };
    for (index, (definition, field)) in config.defs.iter_mut().zip(fields).enumerate() {
        *definition = sys::rte_acl_field_def {
            type_: match field.kind {
                Kind::Prefix => sys::RTE_ACL_FIELD_TYPE_MASK,
                Kind::Range => sys::RTE_ACL_FIELD_TYPE_RANGE,
                Kind::Bits => sys::RTE_ACL_FIELD_TYPE_BITMASK,
            } as u8,
            size: field.size,
            field_index: index as u8, // at most RTE_ACL_MAX_FIELDS
            input_index: field.group,
            offset: field.offset.into(),
        };
    }
    config
}

fn row<const FIELDS: usize>(fields: &[Field; FIELDS], entry: &Entry<FIELDS>) -> Row<FIELDS> {
    let data = sys::rte_acl_rule_data {
        category_mask: entry.categories,
        priority: entry.priority.clamp(1, MAX_PRIORITY) as i32,
        userdata: entry.answer.get(),
    };
    let mut row = Row { data, fields: [sys::rte_acl_field::default(); FIELDS] };
    for ((out, &(value, second)), field) in row.fields.iter_mut().zip(&entry.conditions).zip(fields) {
        out.value = number(value, field.size);
        // The length of a prefix is a number of the field's size too.
        out.mask_range = number(second, field.size);
    }
    row
}

fn number(value: u32, size: u8) -> sys::rte_acl_field_types {
    match size {
        1 => sys::rte_acl_field_types { u8_: value as u8 },
        2 => sys::rte_acl_field_types { u16_: value as u16 },
        _ => sys::rte_acl_field_types { u32_: value },
    }
}

fn succeeded(code: c_int, entries: usize, action: &str) -> Result<(), Error> {
    if code == 0 { Ok(()) } else { Err(failed(Errno::from_return(code), entries, action)) }
}

fn failed(errno: Errno, entries: usize, action: &str) -> Error {
    let error = Error::call(format!("{action} a classifier of {entries} entries"), errno);
    if errno.0 == libc::ENOMEM { error.with_remedy("raise memory_mb under [eal]") } else { error }
}
