//! How far the log may run ahead of a checkpoint.

/// Ops between checkpoints.
pub(crate) const CHECKPOINT_OPS: u64 = 960;
/// Ops per compaction bar: a checkpoint is written when the bar after it commits.
const BAR_OPS: u64 = 32;
/// Most prepares in flight.
pub(crate) const PIPELINE_OPS: u64 = 8;

/// While at most this many ops are known after a checkpoint, TigerBeetle does not count the
/// checkpoint as durable and insists on the log back to the checkpoint before it: a checkpoint is
/// durable when the commit number passes its trigger by a pipeline, and the head may be another
/// pipeline ahead of the commit number (`Checkpoint.durable`, `Replica.op_repair_min`).
pub(crate) const DURABLE_OPS: u64 = BAR_OPS + 2 * PIPELINE_OPS;

/// The highest op that may be prepared while `checkpoint` is the newest one: the trigger of the next
/// checkpoint and two pipelines.
pub(crate) fn prepare_max(checkpoint_op: u64) -> u64 {
    let next = if checkpoint_op == 0 { CHECKPOINT_OPS - 1 } else { checkpoint_op + CHECKPOINT_OPS };
    next + BAR_OPS + 2 * PIPELINE_OPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepare_max_is_tigerbeetles() {
        assert_eq!(prepare_max(0), 1007);
        assert_eq!(prepare_max(959), 959 + 1008);
    }
}
