//! What frames do to a client's state.

use super::*;

fn described() -> Replica {
    let mut replica = Replica::new([json!({"table": "t"})]);
    let shape = json!([null, null, "sync", "shape", {"ref": "0", "shape": "s", "fingerprint": "f",
        "table": ["public", "t"], "key": ["id"], "columns": [{"name": "id"}, {"name": "v"}]}]);
    replica.handle(&shape.to_string()).unwrap();
    replica
}

#[test]
fn nothing_is_visible_before_commit() {
    let mut replica = described();
    replica
        .handle(r#"[null,null,"sync","rows",{"shape":"s","reset":"first","put":[[1,"a"],[2,"b"]]}]"#)
        .unwrap();
    assert_eq!(replica.rows_of("0"), None);
    replica.handle(r#"[null,null,"sync","commit",{"lsn":"0/1","xid":null,"cursor":"c"}]"#).unwrap();
    assert_eq!(replica.column("0", "v"), ["a", "b"]);
    replica
        .handle(r#"[null,null,"sync","rows",{"shape":"s","remove":[[1]],"patch":[[[2,null],[1]]]}]"#)
        .unwrap();
    replica.disconnected();
    replica.handle(r#"[null,null,"sync","commit",{"lsn":"0/2","xid":null,"cursor":"d"}]"#).unwrap();
    assert_eq!(replica.column("0", "v"), ["a", "b"]);
}

#[test]
fn outcomes_of_a_lost_history_are_not_confirmed() {
    let mut replica = Replica { last: 5, confirmed: 5, ..Replica::default() };
    replica.push("six", Vec::new());
    replica.renumber_after(3);
    assert_eq!((replica.outbox[0].n, replica.confirmed), (4, 3));
}

/// m1 was carried out before m2 met a number that was taken.
#[test]
fn what_the_old_id_carried_out_is_not_sent_under_the_new_one() {
    let mut replica = described();
    replica.client = Some("old".into());
    replica.push("m1", Vec::new());
    replica.push("m2", Vec::new());
    replica.renumber_when_told("new", 1);
    let commit = r#"[null,null,"sync","commit",{"lsn":"0/1","xid":null,"cursor":"c"}]"#;
    let Ok(Heard::Commit(heard)) = replica.handle(commit) else { panic!("a commit") };
    assert!(heard.left.is_none() && replica.mutate().is_none(), "this session may have told less");
    replica.disconnected();
    assert_eq!(replica.join()["client"], "old");
    let ack = r#"[null,null,"sync","ack",{"mutations":[{"n":"1","id":"m1","outcome":"applied"}]}]"#;
    replica.handle(ack).unwrap();
    let Ok(Heard::Commit(heard)) = replica.handle(commit) else { panic!("a commit") };
    assert_eq!((heard.left, heard.outcomes.len()), (Some(Left::Renumbered), 1));
    assert_eq!((replica.client.as_deref(), replica.outbox.len(), replica.outbox[0].n), (Some("new"), 1, 1));
    assert!(replica.mutate().is_some());
}

/// m1 was carried out for a copy of the profile, which was told, confirmed it and had it forgotten.
#[test]
fn what_another_copy_had_forgotten_is_the_applications_to_decide() {
    let mut replica = described();
    replica.push("m1", Vec::new());
    replica.push("m2", Vec::new());
    replica.renumber_when_told("new", 1);
    replica.disconnected();
    let commit = r#"[null,null,"sync","commit",{"lsn":"0/1","xid":null,"cursor":"c"}]"#;
    let Ok(Heard::Commit(heard)) = replica.handle(commit) else { panic!("a commit") };
    assert_eq!(heard.left, Some(Left::Unknown("new".into())));
    assert!(replica.mutate().is_none(), "nothing is sent until the application has decided");
    replica.renumber("new");
    assert!(replica.mutate().is_some());
}

#[test]
fn a_patch_of_an_unknown_row_is_against_the_protocol() {
    let mut replica = described();
    replica.handle(r#"[null,null,"sync","rows",{"shape":"s","patch":[[[2,null],[1]]]}]"#).unwrap();
    assert!(replica.handle(r#"[null,null,"sync","commit",{"lsn":"0/1","xid":null,"cursor":"c"}]"#).is_err());
}

/// Joined as a client that takes it; a shape is described, two of its rows are set aside, and may be shown.
fn provisional() -> Replica {
    let mut replica = described();
    replica.takes_provisional = true;
    assert_eq!(replica.join()["capabilities"], json!(["widen", "provisional"]));
    for frame in [
        r#"[null,null,"sync","progress",{"load":"3.0","about":4}]"#,
        r#"[null,null,"sync","load",{"load":"3.0","shape":"s","reset":"first","put":[[1,"a"]]}]"#,
        r#"[null,null,"sync","load",{"load":"3.0","shape":"s","put":[[2,"b"]]}]"#,
    ] {
        assert_eq!(replica.handle(frame), Ok(Heard::Nothing));
    }
    assert_eq!((replica.progress(), replica.provisional()), (vec![(2, 4)], vec![]));
    let shown = replica.handle(r#"[null,null,"sync","provisional",{"loads":["3.0"]}]"#);
    assert_eq!((shown, replica.provisional()), (Ok(Heard::Provisional), vec!["0"]));
    assert_eq!(replica.provisional_rows_of("0").map(|rows| rows.len()), Some(2));
    assert_eq!((replica.rows_of("0"), replica.cursor.as_deref()), (None, None), "nothing is stored");
    replica
}

#[test]
fn what_is_provisional_is_made_final_by_its_batch() {
    let mut replica = provisional();
    let digest = replica.provisional_digest("0");
    replica.handle(r#"[null,null,"sync","loaded",{"loads":["3.0"]}]"#).unwrap();
    assert_eq!(replica.provisional(), ["0"], "until the commit");
    replica.handle(r#"[null,null,"sync","commit",{"lsn":"0/1","xid":null,"cursor":"c"}]"#).unwrap();
    assert_eq!((replica.digest("0"), replica.provisional_digest("0")), (digest, None));
    assert_eq!((replica.column("0", "v"), replica.progress()), (vec!["a".into(), "b".into()], vec![]));
    let again = replica.handle(r#"[null,null,"sync","provisional",{"loads":[]}]"#);
    assert!(again.is_err(), "it shows something");
}

#[test]
fn what_is_provisional_is_forgotten_with_its_load_and_its_connection() {
    let mut replica = provisional();
    replica.handle(r#"[null,null,"sync","unload",{"loads":["3.0"]}]"#).unwrap();
    assert_eq!((replica.provisional(), replica.aside(), replica.progress()), (vec![], 0, vec![]));
    let mut replica = provisional();
    replica.disconnected();
    assert_eq!((replica.provisional(), replica.join()["cursor"].clone()), (vec![], Json::Null));
    assert_eq!(replica.join()["shapes"][0]["have"], false);
    let mut replica = provisional();
    replica.handle(r#"["1","1","sync","phx_close",{}]"#).unwrap();
    assert_eq!(replica.provisional(), [] as [&str; 0]);
    let mut replica = described();
    assert!(
        replica.handle(r#"[null,null,"sync","provisional",{"loads":[]}]"#).is_err(),
        "nobody asked for it"
    );
}
