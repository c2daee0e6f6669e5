//! The contract of [`StateStore`].

use logweir_core::{ErrorKind, StateStore};

/// What a store does about a second owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fencing {
    /// Refuses it while the first lives.
    Refuses,
    /// Lets it take over; the first is refused from then on.
    TakesOver,
}

/// Runs the suite over stores that `make` opens at one and the same place, empty at first.
pub async fn state<S: StateStore>(mut make: impl FnMut() -> S, fencing: Fencing) {
    let mut store = make();
    assert!(!store.location().is_empty(), "a store says where its document is");
    assert_eq!(store.peek().await.expect("an empty place can be looked at"), None);
    let error = store.save(b"too early").await.expect_err("only an owner may save");
    assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
    assert_eq!(store.claim().await.expect("an empty place can be claimed"), None, "nothing was saved before");
    assert_eq!(make().peek().await.expect("a claimed place can be looked at"), None, "a claim decides nothing");

    // Replaced whole, whatever the bytes and however long.
    let long: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    for document in [b"{\"a\":1}\n".as_slice(), &long, b"\n\n", b"\xff\x00", b"", b"last"] {
        store.save(document).await.expect("an owner can save");
        assert_eq!(store.peek().await.expect("an owner can look").as_deref(), Some(document));
        assert_eq!(make().peek().await.expect("others can look").as_deref(), Some(document));
    }

    // The owner may read anew, as after a save whose outcome it does not know.
    assert_eq!(store.claim().await.expect("an owner can claim again").as_deref(), Some(&b"last"[..]));
    store.save(b"still").await.expect("it is the owner still");

    let mut second = make();
    match fencing {
        Fencing::Refuses => {
            for _ in 0..2 {
                let error = second.claim().await.expect_err("a second owner is refused");
                assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}");
                assert!(error.get_remedy().is_some(), "says what to do: {error}");
            }
            assert!(second.save(b"stolen").await.is_err(), "who was refused cannot save");
            assert_eq!(second.peek().await.expect("who was refused can look").as_deref(), Some(&b"still"[..]));
            store.save(b"mine").await.expect("the first owner goes on");
            drop(store);
        }
        Fencing::TakesOver => {
            assert_eq!(second.claim().await.expect("a newer owner takes over").as_deref(), Some(&b"still"[..]));
            for _ in 0..2 {
                let error = store.save(b"late").await.expect_err("the older is fenced");
                assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}");
                let error = store.claim().await.expect_err("the older takes nothing back");
                assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}");
            }
            second.save(b"mine").await.expect("the newer owner goes on");
            assert!(store.save(b"late").await.is_err());
        }
    }
    drop(second);

    // After the owner's end, however it came, the next one goes on where it was.
    let mut next = make();
    assert_eq!(next.claim().await.expect("the place is free again").as_deref(), Some(&b"mine"[..]));
    next.save(b"next").await.expect("the new owner can save");
    assert_eq!(make().peek().await.expect("others can look").as_deref(), Some(&b"next"[..]));
}
