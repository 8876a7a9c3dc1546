//! The usual way to stream events with axum, to compare with: its `Sse`, a tokio broadcast, JSON for each client.

use std::convert::Infallible;

use axum::{
    Json, Router,
    extract::State,
    response::sse::{Event as Frame, KeepAlive, Sse},
    routing::{get, post},
};
use futures_util::{Stream, stream};
use taskwatch::event::Event;
use tokio::{net::TcpListener, sync::broadcast};

/// Events that a client may be behind before it misses some.
const CHANNEL: usize = 4_096;

/// Serves until it is killed.
pub(crate) async fn serve() {
    let (sender, _) = broadcast::channel::<Event>(CHANNEL);
    let router = Router::new().route("/publish", post(publish)).route("/events", get(events)).with_state(sender);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("listening on http://{}", listener.local_addr().expect("it is bound"));
    axum::serve(listener, router).await.expect("it serves");
}

async fn publish(State(sender): State<broadcast::Sender<Event>>, Json(event): Json<Event>) {
    let _ = sender.send(event);
}

async fn events(State(sender): State<broadcast::Sender<Event>>) -> Sse<impl Stream<Item = Result<Frame, Infallible>>> {
    let hello = Frame::default().event("hello").data("{}");
    let events = stream::unfold((sender.subscribe(), Some(hello)), |(mut events, hello)| async move {
        if let Some(hello) = hello {
            return Some((Ok(hello), (events, None)));
        }
        loop {
            match events.recv().await {
                Ok(event) => {
                    let id = event.event_id.clone().unwrap_or_default();
                    let frame = Frame::default().event(event.event_type.name()).id(id).json_data(&event);
                    return Some((Ok(frame.expect("an event is JSON")), (events, None)));
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}
