//! Backup, restore, and the journal.

use std::collections::BTreeMap;
use std::time::Duration;

use control::{Approvals, CertificateStanding, ControlError, ReplyForm, Store};
use enroll::{Approval, AuthorityAlgorithm, RejectionReason, RevocationCause};

use crate::desk::{Desk, Device, WithKeyFile, at, authority, client, suspended, wish};

#[tokio::test]
async fn a_restored_backup_voids_open_tickets_and_un_revokes_nothing() {
    let (desk, mut store) = Desk::new().await;
    let ca = authority(&mut store).await;
    for name in ["alice", "bob", "carol"] {
        store.issue_with_key(&at(1), &ca, client(name)).await.unwrap();
    }
    store.revoke(&at(2), "alice", RevocationCause::Withdrawn).await.unwrap();
    let ticket = store.new_ticket(&at(2), &wish("dave", Approval::Auto)).await.unwrap();
    let file = desk.directory.join("backup");
    let backup = store.backup(&at(3), &file).await.unwrap();
    store.verify_journal(Some(&backup.journal.head)).await.unwrap();
    // After the backup: the ticket is used, Bob is revoked here, Carol on a list that was published.
    let device = Device::new(&ticket, 1);
    let incoming = store.read_request(&device.request).await.unwrap();
    let form = ReplyForm::Complete;
    store.accept(&at(4), &incoming, Approvals::Code, Some(&ca), 398, form).await.unwrap();
    store.revoke(&at(5), "bob", RevocationCause::Withdrawn).await.unwrap();
    store.close().await.unwrap();

    let mut elsewhere = desk.open().await;
    elsewhere.revoke(&at(6), "carol", RevocationCause::Compromise).await.unwrap();
    let lists = elsewhere.revocation_lists(&at(6), Duration::from_hours(48), &mut WithKeyFile).await.unwrap();
    elsewhere.close().await.unwrap();
    let list = desk.directory.join("list.crl");
    std::fs::write(&list, &lists[0]).unwrap();

    let fresh = Desk::bare();
    let lists = [list];
    let restored = Store::restore(&at(7), &file, &fresh.directory, &lists, &mut WithKeyFile).await.unwrap();
    assert_eq!((restored.voided, restored.merged, restored.before), (1, 2, None));
    let mut store = fresh.open().await;
    let standings: Vec<_> = store.certificates(&at(8)).await.unwrap().into_iter().map(|entry| entry.standing).collect();
    assert_eq!(standings, [CertificateStanding::Revoked; 3]);
    let incoming = store.read_request(&device.request).await.unwrap();
    let answer = store.accept(&at(9), &incoming, Approvals::Code, None, 398, form).await.unwrap();
    assert_eq!(answer.reason, Some(RejectionReason::Voided));
    store.verify_journal(None).await.unwrap();

    // Into the same directory: what is revoked there stays revoked without any list.
    let restored = Store::restore(&at(10), &file, &desk.directory, &[], &mut WithKeyFile).await.unwrap();
    assert_eq!((restored.voided, restored.merged), (1, 2));
    assert!(restored.before.unwrap().exists());
    let other = Desk::bare();
    std::fs::create_dir_all(&other.directory).unwrap();
    let no_backup = other.directory.join("x");
    std::fs::write(&no_backup, b"SQLite format 3\0 and nothing else").unwrap();
    let refused = Store::restore(&at(11), &no_backup, &desk.directory, &[], &mut WithKeyFile).await;
    assert!(matches!(refused, Err(ControlError::NotABackup(_))));
    desk.open().await;
}

#[tokio::test]
async fn what_any_of_backup_store_and_list_has_suspended_is_suspended_after_a_restore_until_it_is_released() {
    let (desk, mut store) = Desk::new().await;
    let ca = authority(&mut store).await;
    let [free, held] = ["free", "held"].map(|name| desk.directory.join(name));
    store.backup(&at(1), &free).await.unwrap();
    suspended(&mut store, &ca, "n1").await;
    let serial = store.certificate(&at(5), "n1").await.unwrap().serial;
    store.backup(&at(6), &held).await.unwrap();
    let lists = store.revocation_lists(&at(6), Duration::from_hours(48), &mut WithKeyFile).await.unwrap();
    store.close().await.unwrap();
    let list = [desk.directory.join("list.crl")];
    std::fs::write(&list[0], &lists[0]).unwrap();
    // Suspended here, not in the backup, which does not even know the certificate.
    Store::restore(&at(7), &free, &desk.directory, &[], &mut WithKeyFile).await.unwrap();
    let mut store = desk.open().await;
    assert_eq!(store.release(&at(8), &serial).await.unwrap().name, None);
    store.close().await.unwrap();
    // Released here: suspended in the backup, then on the list alone, then nowhere.
    for (now, backup, lists, suspended) in
        [(9, &held, &[][..], true), (11, &free, &list, true), (13, &free, &[], false)]
    {
        Store::restore(&at(now), backup, &desk.directory, lists, &mut WithKeyFile).await.unwrap();
        let mut store = desk.open().await;
        assert_eq!(store.release(&at(now + 1), &serial).await.is_ok(), suspended, "restored at {now}");
        store.verify_journal(None).await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_backup_of_another_cluster_changes_nothing() {
    let (desk, mut store) = Desk::new().await;
    let ticket = store.new_ticket(&at(1), &wish("alice", Approval::Auto)).await.unwrap();
    store.close().await.unwrap();
    let foreign = Desk::bare();
    let mut other = foreign.create_cluster("branch", AuthorityAlgorithm::P256).await.unwrap();
    other.new_ticket(&at(1), &wish("bob", Approval::Auto)).await.unwrap();
    let file = foreign.directory.join("backup");
    other.backup(&at(2), &file).await.unwrap();
    let files = || {
        let entries = std::fs::read_dir(&desk.directory).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect::<BTreeMap<_, _>>()
    };
    let before = files();
    let refused = Store::restore(&at(3), &file, &desk.directory, &[], &mut WithKeyFile).await;
    assert!(matches!(refused, Err(ControlError::OtherCluster { .. })), "{refused:?}");
    assert!(files() == before, "{:?}", files().keys());
    let device = Device::new(&ticket, 1);
    desk.open().await.read_request(&device.request).await.unwrap();
}

#[tokio::test]
async fn a_backup_that_fails_leaves_nothing_behind() {
    use std::os::unix::fs::PermissionsExt as _;
    let (desk, mut store) = Desk::new().await;
    // A directory in the place of the backup: it is written, and cannot have its name.
    let taken = desk.directory.join("taken");
    std::fs::create_dir(&taken).unwrap();
    assert!(matches!(store.backup(&at(1), &taken).await, Err(ControlError::File { .. })));
    let file = desk.directory.join("backup");
    store.backup(&at(2), &file).await.unwrap();
    for private in ["backup", "store.db", "store.key"] {
        let mode = std::fs::metadata(desk.directory.join(private)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }
    let entries = std::fs::read_dir(&desk.directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["backup", "store.db", "store.key", "taken"]);
}

#[tokio::test]
async fn a_damaged_store_is_replaced_only_when_somebody_has_moved_it_away() {
    let (desk, mut store) = Desk::new().await;
    let file = desk.directory.join("backup");
    store.backup(&at(1), &file).await.unwrap();
    store.close().await.unwrap();
    let database = desk.directory.join("store.db");
    std::fs::write(&database, [0x55; 20_000]).unwrap();
    let refused = Store::restore(&at(2), &file, &desk.directory, &[], &mut WithKeyFile).await;
    assert!(matches!(refused, Err(ControlError::DamagedStore(_))), "{refused:?}");
    std::fs::rename(&database, desk.directory.join("damaged")).unwrap();
    Store::restore(&at(3), &file, &desk.directory, &[], &mut WithKeyFile).await.unwrap();
    desk.open().await.verify_journal(None).await.unwrap();
}

#[tokio::test]
async fn a_store_that_another_program_writes_into_is_not_replaced() {
    let (desk, mut store) = Desk::new().await;
    let file = desk.directory.join("backup");
    store.backup(&at(1), &file).await.unwrap();
    store.close().await.unwrap();
    let mut raw = desk.raw().await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut raw).await.unwrap();
    let refused = Store::restore(&at(2), &file, &desk.directory, &[], &mut WithKeyFile).await;
    assert!(matches!(refused, Err(ControlError::Busy)), "{refused:?}");
    sqlx::raw_sql("ROLLBACK").execute(&mut raw).await.unwrap();
    Store::restore(&at(3), &file, &desk.directory, &[], &mut WithKeyFile).await.unwrap();
}

#[tokio::test]
async fn a_changed_or_cut_journal_is_found_and_the_database_refuses_to_change_it() {
    let (desk, mut store) = Desk::new().await;
    for number in 0..5 {
        store.new_ticket(&at(number), &wish(&format!("a{number}"), Approval::Auto)).await.unwrap();
    }
    let head = store.verify_journal(None).await.unwrap();
    store.close().await.unwrap();
    let mut raw = desk.raw().await;
    assert!(sqlx::query("UPDATE journal SET actor = 'nobody' WHERE seq = 3").execute(&mut raw).await.is_err());
    assert!(sqlx::query("DELETE FROM journal WHERE seq = 7").execute(&mut raw).await.is_err());
    assert!(sqlx::query("DELETE FROM ticket").execute(&mut raw).await.is_err());
    let unlocked = "DROP TRIGGER journal_is_not_changed; DROP TRIGGER journal_is_not_cut;";
    sqlx::raw_sql(unlocked).execute(&mut raw).await.unwrap();
    sqlx::query("DELETE FROM journal WHERE seq = 7").execute(&mut raw).await.unwrap();
    let mut store = desk.open().await;
    store.verify_journal(None).await.unwrap();
    let cut = store.verify_journal(Some(&head.head)).await;
    assert!(matches!(cut, Err(ControlError::JournalHead(_))));
    sqlx::query("UPDATE journal SET actor = 'nobody' WHERE seq = 3").execute(&mut raw).await.unwrap();
    assert!(matches!(store.verify_journal(None).await, Err(ControlError::JournalBroken(3))));
}
