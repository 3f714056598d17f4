//! The catalog on a server that is frozen: it takes what is sent, and answers nothing.

use std::time::Duration;

use tmomi_persist::catalog::{Catalog, CatalogError, NewVenue, Page};

use crate::databases;
use crate::servers::{Kind, Own};

/// Longer than any statement may take, and short of for ever.
const PATIENCE: Duration = Duration::from_secs(30);
const ALL: Page = Page { after: 0, limit: 1_000 };

/// What became of a question: nobody fails while the server is frozen, or its database would be
/// waited for at the end.
async fn told(asked: impl Future<Output = Result<(), CatalogError>>) -> String {
    match tokio::time::timeout(PATIENCE, asked).await {
        Err(_) => "it waits for ever".to_owned(),
        Ok(Ok(())) => "it was answered".to_owned(),
        Ok(Err(error)) => error.to_string(),
    }
}

async fn create(catalog: &Catalog, name: &str) -> Result<(), CatalogError> {
    let mut change = catalog.change().await?;
    change.create_venue(NewVenue { name, address: None }).await?;
    change.commit_unanswered().await
}

async fn names(catalog: &Catalog) -> Result<Vec<String>, CatalogError> {
    Ok(catalog.venues(ALL).await?.items.into_iter().map(|venue| venue.name).collect())
}

/// Planted bugs: a statement has no limit; a connection that owes an answer is used again; one
/// whose transaction was left goes back as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_told_in_time_and_used_again_when_it_wakes() {
    let own = Own::start(Kind::MariaDb);
    let database = databases::on_server("MariaDB", own.address()).await;
    let catalog = Catalog::open(database.place.clone()).await.unwrap();
    create(&catalog, "before").await.unwrap();
    // A change that is left undone changes nothing and keeps nobody waiting.
    let mut left = catalog.change().await.unwrap();
    left.create_venue(NewVenue { name: "left", address: None }).await.unwrap();
    drop(left);
    create(&catalog, "behind").await.unwrap();
    let mut open = catalog.change().await.unwrap();
    open.create_venue(NewVenue { name: "open", address: None }).await.unwrap();
    own.pause();
    // More at once than there are connections.
    let mut reading = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let catalog = catalog.clone();
        reading.spawn(async move { told(async { names(&catalog).await.map(drop) }).await });
    }
    let mut said = reading.join_all().await;
    said.push(told(open.commit_unanswered()).await);
    said.push(told(create(&catalog, "never")).await);
    own.resume();
    for said in said {
        assert!(said.starts_with("the catalog database: "), "{said}");
    }
    let after = async {
        // Whether the commit was done, nobody can know; what was asked first is answered first.
        while create(&catalog, "after").await.is_err() {}
        loop {
            if let Ok(names) = names(&catalog).await {
                return names;
            }
        }
    };
    let names = tokio::time::timeout(PATIENCE, after).await.expect("it is used again");
    assert_eq!(names[..2], ["before", "behind"], "{names:?}");
    assert!(names.iter().any(|name| name == "after"), "{names:?}");
    assert!(!names.iter().any(|name| name == "left"), "{names:?}");
    catalog.close().await;
}
