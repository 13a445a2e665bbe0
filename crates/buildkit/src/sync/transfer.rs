//! A tree that comes over a stream: what is read of it is written on threads that may wait for the disk, never for the client.

use std::time::Duration;

use blocking::Class;
use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use model::{Error, Result};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::Receiver;
use crate::error::answered;

/// Packets that are written at one time.
const BATCH: usize = 256;
/// Bytes of them.
const BATCH_BYTES: usize = 4 << 20;
/// Packets to a client that it has not taken; more than it has to be asked at one time.
pub(crate) const QUEUE: usize = 128;
/// How long a client may take to end its side.
const END: Duration = Duration::from_secs(10);

/// A stream of packets in both directions.
pub(crate) struct Exchange {
    /// From the client.
    pub(crate) packets: Streaming<Packet>,
    /// To it.
    pub(crate) answers: mpsc::Sender<Packet>,
}

/// Receives a tree; `told` hears how many bytes have come.
pub(crate) async fn receive(
    mut exchange: Exchange,
    receiver: Receiver,
    threads: &Class,
    told: &(dyn Fn(u64) + Sync),
) -> Result<Receiver> {
    let outcome = take_all(&mut exchange, receiver, threads, told).await;
    let last = match &outcome {
        Ok(_) => packet(PacketType::PacketFin),
        Err(error) => Packet { data: error.message().as_bytes().to_vec(), ..packet(PacketType::PacketErr) },
    };
    // A client that left hears of nothing.
    drop(exchange.answers.send(last).await);
    let Exchange { mut packets, answers } = exchange;
    if outcome.is_ok() {
        let ended = async { while let Ok(Some(_)) = packets.message().await {} };
        drop(tokio::time::timeout(END, ended).await);
    }
    drop(answers);
    outcome
}

async fn take_all(
    exchange: &mut Exchange,
    mut receiver: Receiver,
    threads: &Class,
    told: &(dyn Fn(u64) + Sync),
) -> Result<Receiver> {
    let mut bytes = 0;
    loop {
        let batch = batch(&mut exchange.packets).await?;
        bytes += batch.iter().map(|packet| packet.encoded_len() as u64).sum::<u64>();
        told(bytes);
        let work = move |on: &_| {
            batch.into_iter().try_for_each(|packet| receiver.take(packet, on))?;
            let requests = receiver.requests();
            Ok((receiver, requests))
        };
        let requests;
        (receiver, requests) = threads.run(work).await?;
        for id in requests {
            let request = Packet { id, ..packet(PacketType::PacketReq) };
            exchange.answers.send(request).await.map_err(|_| Error::unavailable("the client has left"))?;
        }
        if receiver.is_complete() {
            return Ok(receiver);
        }
    }
}

/// What has come, one packet at least.
async fn batch(packets: &mut Streaming<Packet>) -> Result<Vec<Packet>> {
    let first = packets.message().await.map_err(|status| answered(&status))?;
    let first = first.ok_or_else(|| Error::unavailable("the client has ended a transfer of files early"))?;
    let mut bytes = first.data.len();
    let mut batch = vec![first];
    while batch.len() < BATCH && bytes < BATCH_BYTES {
        let next = tokio::select! {
            biased;
            next = packets.message() => next,
            () = std::future::ready(()) => break,
        };
        let Some(next) = next.map_err(|status| answered(&status))? else { break };
        bytes += next.data.len();
        batch.push(next);
    }
    Ok(batch)
}

fn packet(kind: PacketType) -> Packet {
    Packet { r#type: kind.into(), ..Packet::default() }
}
