//! A tree of files for a client: it is told of all of them, and asks for the content of those that it has not.

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::sync::Arc;

use blocking::Class;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::packet::file_send_client::FileSendClient;
use build::export::Files;
use model::{Error, Result};
use tokio::sync::mpsc;
use tonic::{Request, Streaming};

use crate::error::answered;
use crate::inputs::bytes::Queue;
use crate::session::Channel;

/// Files of one tree.
const FILES: usize = 1_000_000;
/// Bytes of a message.
const PIECE: usize = 128 << 10;
/// Go's bits of set-user-id, set-group-id and sticky: such files have content like others.
const SPECIAL: u32 = 0b1101 << 20;
/// Messages that wait to be sent.
const QUEUE: usize = 64;

/// Sends them; `request` says for which exporter.
pub(super) async fn send(
    channel: Channel,
    request: impl FnOnce(Queue<Packet>) -> Request<Queue<Packet>>,
    files: Arc<Files>,
    threads: &Class,
) -> Result<()> {
    let (packets, queue) = mpsc::channel(QUEUE);
    let mut request = request(Queue(queue));
    crate::metadata::append(request.metadata_mut(), "buildkit-exporter-multi-platform", &["1".into()]);
    let mut client = FileSendClient::with_origin(channel, Channel::origin());
    let listed = files.clone();
    let stats = threads.run(move |_| list(&listed)).await?;
    let regular: HashMap<u32, String> = (0..)
        .zip(&stats)
        .filter(|(_, stat)| stat.mode & !(0o777 | SPECIAL) == 0)
        .map(|(id, stat)| (id, stat.path.clone()))
        .collect();
    let sender = Sender { packets, files, threads };
    let asked = mpsc::channel(FILES);
    // A client answers when it has been told of files.
    let called = async {
        let answer = client.diff_copy(request).await.map_err(|status| answered(&status))?;
        read(answer.into_inner(), asked.0).await
    };
    tokio::try_join!(sender.run(stats, regular, asked.1), called).map(|_| ())
}

fn list(files: &Files) -> Result<Vec<Stat>> {
    let mut stats = Vec::new();
    files.walk(&mut |stat| {
        if stats.len() >= FILES {
            return Err(std::io::Error::other(format!("more than {FILES} files")));
        }
        stats.push(stat);
        Ok(())
    })?;
    Ok(stats)
}

/// Reads what the client asks for until it has everything.
async fn read(mut requests: Streaming<Packet>, asked: mpsc::Sender<Option<u32>>) -> Result<()> {
    loop {
        let packet = requests.message().await.map_err(|status| answered(&status))?;
        let Some(packet) = packet else { return Err(Error::unavailable("the client has ended an export early")) };
        let one = match packet.r#type() {
            PacketType::PacketReq => Some(packet.id),
            PacketType::PacketFin => None,
            PacketType::PacketErr => return Err(Error::system(String::from_utf8_lossy(&packet.data).into_owned())),
            _ => return Err(Error::invalid("a packet that no receiver of files sends")),
        };
        let is_last = one.is_none();
        if asked.try_send(one).is_err() {
            return Err(Error::invalid(format!("more than {FILES} requests for files")));
        }
        if is_last {
            // Until it closes its side.
            while let Ok(Some(_)) = requests.message().await {}
            return Ok(());
        }
    }
}

struct Sender<'s> {
    packets: mpsc::Sender<Packet>,
    files: Arc<Files>,
    threads: &'s Class,
}

impl Sender<'_> {
    async fn run(
        self,
        stats: Vec<Stat>,
        mut regular: HashMap<u32, String>,
        mut asked: mpsc::Receiver<Option<u32>>,
    ) -> Result<()> {
        let mut stats = VecDeque::from(stats);
        while let Some(stat) = stats.pop_front() {
            self.send(Packet { stat: Some(stat), ..packet(PacketType::PacketStat) }).await?;
        }
        self.send(packet(PacketType::PacketStat)).await?;
        while let Some(Some(id)) = asked.recv().await {
            let unknown = || Error::invalid(format!("invalid file id {id}"));
            let path = regular.remove(&id).ok_or_else(unknown)?;
            self.content(id, path).await?;
        }
        self.send(packet(PacketType::PacketFin)).await
    }

    async fn content(&self, id: u32, path: String) -> Result<()> {
        let (threads, files) = (self.threads, self.files.clone());
        let mut file = threads.run(move |_| Ok(files.open_file(&path)?)).await?;
        loop {
            let read = move |_: &_| {
                let mut data = Vec::with_capacity(PIECE);
                file.by_ref().take(PIECE as u64).read_to_end(&mut data)?;
                Ok((file, data))
            };
            let data;
            (file, data) = threads.run(read).await?;
            let is_last = data.is_empty();
            self.send(Packet { id, data, ..packet(PacketType::PacketData) }).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    async fn send(&self, packet: Packet) -> Result<()> {
        self.packets.send(packet).await.map_err(|_| Error::unavailable("the client has left"))
    }
}

fn packet(kind: PacketType) -> Packet {
    Packet { r#type: kind.into(), ..Packet::default() }
}
