//! What an owner allows an app, and lnd's permissions for it.

use std::fmt;

/// One of lnd's permissions: an entity and an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Op {
    /// Such as `offchain`.
    pub entity: &'static str,
    /// `read` or `write`.
    pub action: &'static str,
}

impl Op {
    pub(crate) const fn read(entity: &'static str) -> Op {
        let action = "read";
        Op { entity, action }
    }

    pub(crate) const fn write(entity: &'static str) -> Op {
        let action = "write";
        Op { entity, action }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.entity, self.action)
    }
}

/// What an owner allows an app. The groups are those of lnd's own macaroons (readonly, invoice, admin), with one difference: each of
/// them reads `info`, since apps begin with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// To read all that a node answers.
    pub read: bool,
    /// To make invoices and addresses, and to read them.
    pub invoices: bool,
    /// To ask the owner's phone for payments. lnd's permissions for it read channels and payments too.
    pub pay: bool,
}

impl Rights {
    /// lnd's permissions, sorted; empty for no right.
    pub fn ops(self) -> Vec<Op> {
        const READ: [Op; 5] = [
            Op::read("address"),
            Op::read("info"),
            Op::read("invoices"),
            Op::read("offchain"),
            Op::read("onchain"),
        ];
        const INVOICES: [Op; 5] = [
            Op::read("address"),
            Op::write("address"),
            Op::read("info"),
            Op::read("invoices"),
            Op::write("invoices"),
        ];
        const PAY: [Op; 5] = [
            Op::read("info"),
            Op::read("offchain"),
            Op::write("offchain"),
            Op::read("onchain"),
            Op::write("onchain"),
        ];
        let groups = [
            (self.read, READ),
            (self.invoices, INVOICES),
            (self.pay, PAY),
        ];
        let granted = groups.into_iter().filter(|(is_granted, _)| *is_granted);
        let mut ops: Vec<Op> = granted.flat_map(|(_, ops)| ops).collect();
        ops.sort();
        ops.dedup();
        ops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_right_has_its_permissions() {
        let has = |rights: Rights, op: Op| rights.ops().contains(&op);
        let read = Rights {
            read: true,
            ..Rights::default()
        };
        assert!(read.ops().iter().all(|op| op.action == "read"));
        let invoices = Rights {
            invoices: true,
            ..Rights::default()
        };
        assert!(has(invoices, Op::write("invoices")));
        for entity in ["onchain", "offchain"] {
            assert!(!has(invoices, Op::read(entity)) && !has(invoices, Op::write(entity)));
        }
        let pay = Rights {
            pay: true,
            ..Rights::default()
        };
        assert!(has(pay, Op::write("offchain")) && !has(pay, Op::write("invoices")));
        assert!(Rights::default().ops().is_empty());
    }
}
