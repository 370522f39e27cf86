//! What both guests do.

use wasip3::{wit_bindgen, wit_stream};

/// Prints.
pub async fn say(words: String) {
    let (mut to, from) = wit_stream::new();
    wit_bindgen::spawn_local(async move {
        to.write_all(words.into_bytes()).await;
    });
    wasip3::cli::stdout::write_via_stream(from).await.unwrap();
}
