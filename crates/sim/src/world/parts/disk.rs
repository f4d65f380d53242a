//! A phone's disk.

use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex};

use longhand_phone::testing::{DiskFate, DiskFaults, DiskWrite};
use tokio::time::Instant;

use super::{Life, lock};
use crate::world::plan::{How, Kind, Plan};

/// One process's disk.
pub struct SimDisk {
    phone: usize,
    life: Arc<Life>,
    plan: Plan,
    busy_until: Mutex<Instant>,
}

impl SimDisk {
    pub fn new(phone: usize, life: Arc<Life>, plan: Plan) -> SimDisk {
        SimDisk {
            phone,
            life,
            plan,
            busy_until: Mutex::new(Instant::now()),
        }
    }
}

fn fails(kind: ErrorKind, written: usize) -> DiskFate {
    DiskFate::Fail {
        error: Error::new(kind, "a simulated disk failed"),
        written,
    }
}

impl DiskFaults for SimDisk {
    fn before(&self, write: DiskWrite, bytes: usize) -> DiskFate {
        if self.life.has_ended() {
            return DiskFate::PowerGoneBefore;
        }
        if matches!(write, DiskWrite::Host | DiskWrite::HostForget) {
            return DiskFate::GoOn;
        }
        self.plan.trace(Kind::LedgerWrite, (self.phone, bytes));
        if write == DiskWrite::LedgerCompact {
            self.plan.compacts();
        }
        let Some(interruption) = self.plan.step_at(Kind::LedgerWrite, self.phone) else {
            return DiskFate::GoOn;
        };
        match interruption.how {
            How::Torn => DiskFate::PowerGoneTorn { written: bytes / 2 },
            How::After => DiskFate::PowerGoneAfter,
            How::Late => {
                *lock(&self.busy_until) = Instant::now() + interruption.length.time();
                DiskFate::GoOn
            }
            How::Fails => fails(ErrorKind::Other, 0),
            How::Full => fails(ErrorKind::StorageFull, bytes / 2),
            How::Unheard => fails(ErrorKind::Other, bytes),
            _ => DiskFate::PowerGoneBefore,
        }
    }

    /// Each phone compacts with the first entry that it writes in a scenario.
    fn compact_from_bytes(&self) -> u64 {
        match self.plan.is_armed() {
            true => 0,
            false => u64::MAX,
        }
    }

    fn power_gone(&self) {
        self.life.end();
    }

    fn busy_until(&self) -> Option<Instant> {
        Some(*lock(&self.busy_until)).filter(|until| *until > Instant::now())
    }
}
