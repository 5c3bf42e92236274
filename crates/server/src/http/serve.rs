//! Connections: taken in up to a number, and let go of in good order.

use super::{App, router};
use crate::{ServeError, engine::Command};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::Semaphore, time};

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(30);
/// How long to wait when there is no room for a connection, or none can be taken.
const RETRY: Duration = Duration::from_millis(50);

/// Serves until `stop`; then answers in the works have the grace that the settings give.
pub(crate) async fn serve(
    app: Arc<App>,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let address = app.settings.address;
    let bind = |error| ServeError::Bind { address, error };
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    ready(listener.local_addr().map_err(bind)?);
    let service = router(app.clone());
    let room = Arc::new(Semaphore::new(app.settings.connections));
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            () = &mut stop => break,
        };
        let Some((stream, permit)) = accepted else { continue };
        // Tokens are to arrive one by one.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(service.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that leaves or speaks something else is its own affair.
            let _ = connection.await;
            drop(permit);
        });
    }
    tracing::info!(grace_s = app.settings.grace.as_secs(), "stopping");
    drop(listener);
    let until = Instant::now() + app.settings.grace;
    let _ = app.engine.tell(Command::Stop(until));
    // A little more, so that the last words of what is interrupted arrive.
    let patience = app.settings.grace + Duration::from_secs(2);
    let _ = time::timeout(patience, graceful.shutdown()).await;
    Ok(())
}

/// The next connection, when there is room for one.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            // There are too many open files, say.
            tracing::warn!(%error, "a connection could not be taken");
            time::sleep(RETRY).await;
            None
        }
    }
}
