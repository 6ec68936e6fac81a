//! Transfers of a ledger: another program may write there, too.

use bkp::domain::event::{Event, Numbers};
use bkp::domain::id::BackupId;

use super::bytes::Bytes;

/// A transfer is an event only if that event would be recorded so; and a queued event reads the same
/// after it was printed.
pub(crate) fn run(data: &[u8]) {
    let mut input = Bytes(data);
    let mut wide = || input.take(16).iter().fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
    let (id, user_data_128, amount) = (wide(), wide(), wide());
    let user_data_64 = u64::try_from(input.number::<8>()).unwrap();
    let user_data_32 = u32::try_from(input.number::<4>()).unwrap();
    let numbers = Numbers { id, user_data_128, amount, user_data_64, user_data_32 };
    if let Some(event) = Event::unpack(&numbers) {
        assert_eq!(Numbers::from(&event), numbers);
        assert!(event.backup.created().year() <= 9999, "{event:?}");
    }
    let printed = serde_json::to_vec(&numbers).unwrap();
    assert_eq!(serde_json::from_slice::<Numbers>(&printed).unwrap(), numbers);
    if let Ok(queued) = serde_json::from_slice::<Numbers>(data)
        && let Some(event) = Event::unpack(&queued)
    {
        assert_eq!(Numbers::from(&event), queued);
    }
    if let Some(id) = BackupId::from_u128(id) {
        assert_eq!(id.to_string().parse::<BackupId>(), Ok(id));
        assert_eq!(id.as_u128(), numbers.id);
    }
}

/// A backup that was completed, and one that failed.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let id: BackupId = "01935a3c-7a00-7abc-8def-0123456789ab".parse().unwrap();
    let started = Event::started(id, bkp::domain::names::BackupType::Duckdb);
    let failed = Event::failed(id, bkp::domain::names::BackupType::Tigerbeetle, 61);
    let mut seeds = Vec::new();
    for event in [started, failed, Event { stored_bytes: 1 << 40, ..started.deleted() }] {
        let numbers = Numbers::from(&event);
        let wide = [numbers.id, numbers.user_data_128, numbers.amount].map(u128::to_be_bytes);
        let narrow = [&numbers.user_data_64.to_le_bytes()[..], &numbers.user_data_32.to_le_bytes()];
        seeds.push([wide.concat(), narrow.concat()].concat());
        seeds.push(serde_json::to_vec(&numbers).unwrap());
    }
    seeds
}
