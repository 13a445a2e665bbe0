//! Bounds of everything that comes from outside.

use std::time::Duration;

/// Longest request body that is kept in memory (every JSON body): a container that publishes every port of two protocols,
/// on a named address, has 9 MB.
pub const JSON_BODY: usize = 12 << 20;
/// Longest time for such a body to arrive.
pub const JSON_BODY_TIME: Duration = Duration::from_secs(60);
/// Read buffer of a connection, and with it the longest request head.
pub const HEAD: usize = 256 << 10;
/// Bytes of a head that cost nothing of [`HEADS`].
pub const HEAD_FREE: usize = 8 << 10;
/// Bytes of the longer heads of all connections. They are held until their connection ends.
pub const HEADS: usize = 16 << 20;
/// Bytes of a request after whose answer the connection is closed: its buffers have grown, and an idle connection would keep
/// them.
pub const LARGE_REQUEST: usize = 64 << 10;
/// Bytes of a body kept in memory that cost nothing of [`JSON_BODIES`].
pub const JSON_BODY_FREE: usize = 16 << 10;
/// Bytes of the longer bodies of all requests. They are held until the request is answered, since what was read of them is.
pub const JSON_BODIES: usize = 32 << 20;
/// Most header fields of a request.
pub const HEADER_FIELDS: usize = 128;
/// Longest time between two requests of a connection, and for a request's head to arrive.
pub const HEAD_TIME: Duration = Duration::from_secs(300);
/// Longest time for a TLS handshake.
pub const TLS_HANDSHAKE_TIME: Duration = Duration::from_secs(20);
/// Longest time for the head of a hijacked connection to be written.
pub const HIJACK_HEAD_TIME: Duration = Duration::from_secs(10);
/// Longest wait until the client has taken that head: on a busy machine it is a while before it runs.
pub const HIJACK_TAKEN_TIME: Duration = Duration::from_secs(2);
/// Clients served at one time; further ones wait in the kernel's queue.
pub const CONNECTIONS: usize = 8192;
/// Clients that wait for the end of a container at one time: one for each container that a CLI runs in the foreground.
pub const WAIT_FOR_EXIT: usize = 4096;
/// Clients that listen to events.
pub const WAIT_FOR_EVENTS: usize = 1024;
/// Clients that follow logs.
pub const WAIT_FOR_LOG: usize = 4096;
/// Clients that look at what containers use: `docker stats` has one connection for each container.
pub const WAIT_FOR_STATS: usize = 4096;
/// Clients that are attached to containers that have not been started.
pub const WAIT_FOR_START: usize = 1024;
/// Longest time for places of clients that have left to become free.
pub const RECLAIM_TIME: Duration = Duration::from_secs(1);
/// Chunks of a streamed answer that wait for the client.
pub const STREAM_QUEUE: usize = 16;
/// Bytes of a download's chunk.
pub const DOWNLOAD_CHUNK: usize = 64 << 10;
/// Chunks of a streamed request body that wait for their reader.
pub const UPLOAD_QUEUE: usize = 4;
/// Bytes of a refused upload that are still read, so that its client hears the refusal.
pub const REFUSED_UPLOAD: usize = 1 << 30;
/// Longest payload of one websocket frame.
pub const WEBSOCKET_FRAME: usize = 1 << 20;
/// Longest time that open connections get to finish at shutdown.
pub const DRAIN_TIME: Duration = Duration::from_secs(5);
/// Pause after an `accept` that failed, and between two looks for descriptors when they are short.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often a half-closed unix connection is looked at for its full end.
pub const HANG_UP_POLL: Duration = Duration::from_secs(1);
/// Chunks of streamed answers, of [`SHARED_CHUNK`] bytes, that are on their way beyond the one that each stream may have.
pub const SHARED_CHUNKS: usize = 256;
/// Bytes that count as one of them.
pub const SHARED_CHUNK: usize = 80 << 10;
/// Transfers whose pace a client decides, at one time.
pub const TRANSFERS: usize = 64;
/// A transfer that stands still for so long is cut when others wait.
pub const TRANSFER_STALLED: Duration = Duration::from_secs(10);
/// A transfer that waits for something else than its client for so long is given up when others wait.
pub const TRANSFER_SILENT: Duration = Duration::from_secs(60);
/// Transfers that a file system holds up and that were given up, at one time. Each has a thread until the kernel lets it go.
pub const TRANSFERS_STUCK: usize = 64;
/// Longest wait for a file system of a container to tell what lies at a path.
pub const ARCHIVE_LOOK: Duration = Duration::from_secs(10);
/// How often those that wait look for one that stands still.
pub const TRANSFER_LOOK: Duration = Duration::from_millis(250);
/// Chunks of a download that wait for the client.
pub const DOWNLOAD_QUEUE: usize = 4;
