//! The daemon's life: configuration → pid file → engine → API → service manager, and back.
//!
//! The order is the reference's: `--help`, `--version` and `--validate` end before anything is touched; clients are
//! served only when every container has been recovered; a graceful end takes the API down last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use blocking::{Blocking, Class, Work};
use model::{Context, Result};
use server::Phase;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{self, Config, Env, Loaded, Program};
use crate::upgrade::{Inherited, Sockets, Upgrade};
use crate::{control, listen, mask, pidfile, signals, wiring};

/// Worker threads: handlers wait for the kernel and the disk, not for the processor.
const WORKERS: usize = 2;
/// How long an idle blocking thread stays.
const BLOCKING_IDLE: Duration = Duration::from_secs(2);

/// Arenas of the allocator: what many threads have freed comes back better from few.
const ARENAS: i32 = 2;
/// How often the daemon looks whether it holds more memory than it needs, and how much more.
const MEMORY_LOOK: Duration = Duration::from_secs(2);
const MEMORY_SLACK: u64 = 1 << 20;
/// More of the executable than this is unmapped when the daemon is idle: when it has used less processor time than this since the last
/// look.
const CODE_SLACK: u64 = 8 << 20;
const IDLE_TIME: Duration = Duration::from_millis(10);

/// Runs the daemon.
pub fn main(program: Program<'_>, arguments: Vec<String>) -> ExitCode {
    let mut inherited = Inherited::take();
    let env: Env = std::env::vars().collect();
    let loaded = match config::load(program, &arguments, &env) {
        Ok(loaded) => loaded,
        Err(exit) => {
            let line = |text: &str| if text.is_empty() { String::new() } else { format!("{text}\n") };
            print!("{}", line(&exit.stdout));
            eprint!("{}", line(&exit.stderr));
            return ExitCode::from(exit.code);
        }
    };
    set_up_log(&loaded.config);
    sys::memory::limit_arenas(ARENAS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(blocking::POOL)
        .thread_keep_alive(BLOCKING_IDLE)
        .thread_name("gantryd")
        .enable_all()
        .build();
    let ended = runtime.map_err(model::Error::from).and_then(|runtime| {
        let ended = runtime.block_on(run(loaded, &arguments, &mut inherited));
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    });
    match ended {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(upgrade)) => {
            #[expect(clippy::disallowed_methods, reason = "on the main thread, when nobody is served any more")]
            let error = upgrade.execute(&arguments, &Blocking::alone());
            eprintln!("failed to go on as another executable: {error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            tracing::error!(%error, "daemon ends");
            inherited.fall_back(&arguments);
            eprintln!("failed to start daemon: {error}");
            if error.kind() == model::Kind::DataLoss {
                eprintln!("`gantryd check` tells what is damaged, `gantryd check --repair` what can be done about it");
            }
            ExitCode::FAILURE
        }
    }
}

fn set_up_log(config: &Config) {
    let level = match config.daemon_log.level.as_str() {
        _ if config.daemon_log.debug => tracing::Level::DEBUG,
        "trace" => tracing::Level::TRACE,
        "debug" => tracing::Level::DEBUG,
        "warn" => tracing::Level::WARN,
        "error" | "fatal" | "panic" => tracing::Level::ERROR,
        _ => tracing::Level::INFO,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    match config.daemon_log.format.as_str() {
        "json" => log.json().init(),
        _ => log.with_ansi(false).init(),
    }
}

/// What is made to fail: nothing, but in builds for tests.
fn faults() -> model::fault::Faults {
    #[cfg(debug_assertions)]
    return crate::faults::of_environment();
    #[cfg(not(debug_assertions))]
    return model::fault::Faults::default();
}

async fn run(loaded: Loaded, arguments: &[String], inherited: &mut Inherited) -> Result<Option<Upgrade>> {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let config = loaded.config.clone();
    let mut signals = signals::Signals::new()?;
    inherited.reap_children();
    mask::set();
    tokio::spawn(give_memory_back());
    let pidfile = pidfile::PidFile::write(&config.paths.pidfile)?;
    let min_api_version = config.listen.min_api_version.clone();
    let settings = settings(&config).await?;
    let booted = engine::boot::boot(settings, min_api_version, faults()).await?;
    let (mut left, mut kept) = (inherited.sockets()?, Sockets::default());
    let listeners = listen::bind(&config.listen, &mut left, &mut kept).await?;
    let control = control::socket(&config.paths.exec_root);
    let commands = listen::bind_control(&control, &mut left, &mut kept)?;
    let (life, phase) = watch::channel(Phase::Serving);
    let metrics = listen::bind_metrics(&config.engine.metrics_addr, &mut left, &mut kept)?;
    drop(left);
    let successor = Arc::new(successor(arguments, inherited)?);
    let mut wished = successor.wished.subscribe();
    let measured = Arc::default();
    let state = || Arc::new(server::State::new(booted.engine.clone(), Arc::clone(&measured), successor.clone()));
    let frame = wiring::frame(&config, state())?;
    let mut served = JoinSet::new();
    let control_frame = wiring::control_frame(&config, state())?;
    let metrics_frame = wiring::metrics_frame(&config, state())?;
    for listener in metrics {
        served.spawn(server::listener::serve(listener, metrics_frame.clone(), phase.clone()));
    }
    served.spawn(server::listener::serve(commands, control_frame, phase.clone()));
    for listener in listeners {
        served.spawn(server::listener::serve(listener, frame.clone(), phase.clone()));
    }
    engine::boot::begin(&booted.engine.containers, &booted.engine.settings()).await;
    tell_ready(inherited);
    inherited.let_go();
    // Most of what a start runs never runs again.
    unmap_code(&Class::new(Work::Background)).await;
    tracing::info!("daemon has completed initialization");
    let executable = serve_signals(&mut signals, &booted.engine, loaded, &mut wished).await;
    if executable.is_none() {
        tell_supervisor(&[sd_notify::NotifyState::Stopping]);
        // Before anything ends: nobody comes any more who would have to be refused, or could begin something new.
        listen::clean_up(&config.listen, &control);
    }
    life.send_replace(Phase::Closing);
    let end = async {
        match executable {
            Some(_) => booted.engine.containers.ending.begin(),
            None => engine::boot::shutdown(&booted.engine.containers, &booted.engine.settings()).await,
        }
        life.send_replace(Phase::Draining);
        while served.join_next().await.is_some() {}
        engine::boot::rest(&booted.engine.containers, &booted.engine.store).await;
        engine::boot::close(&booted.engine).await;
    };
    tokio::select! {
        () = end => tracing::info!("daemon shutdown complete"),
        code = signals.insist() => {
            tracing::warn!("forcing daemon shutdown without cleanup; {} interrupts received", signals::FORCE_COUNT);
            std::process::exit(code);
        }
    }
    Ok(executable.map(|executable| {
        pidfile.keep();
        Upgrade::new(executable, kept)
    }))
}

/// What this daemon says to whoever wants it to go on as another executable.
fn successor(arguments: &[String], inherited: &Inherited) -> Result<server::Successor> {
    let directory = std::env::current_dir().context("finding the working directory")?;
    let instance: String = sys::random::bytes32().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let running = serde_json::json!({
        "version": engine::system::VERSION,
        "instance": instance,
        "arguments": arguments,
        "directory": directory,
        "formats": engine::formats::all(),
        "fell_back": inherited.fell_back,
    });
    Ok(server::Successor { running, ..server::Successor::default() })
}

/// Gives memory back to the kernel some seconds after it was needed: when the process has more in memory than it uses, by more
/// than could not be given back the last time; and again until nothing comes of it, as more is freed meanwhile.
async fn give_memory_back() {
    let threads = Class::new(Work::Background);
    let (mut kept, mut again, mut used) = (0, false, sys::clock::process_time());
    loop {
        tokio::time::sleep(MEMORY_LOOK).await;
        let before = std::mem::replace(&mut used, sys::clock::process_time());
        let is_idle = used.saturating_sub(before) < IDLE_TIME;
        if is_idle && sys::memory::resident_files().is_ok_and(|bytes| bytes > CODE_SLACK) {
            unmap_code(&threads).await;
        }
        let Some(unused) = unused_memory() else { return };
        if again || unused > kept + MEMORY_SLACK {
            drop(threads.turn().await.begin(|_| sys::memory::give_back()).await);
            kept = unused_memory().unwrap_or(unused);
            again = unused > kept + MEMORY_SLACK;
        } else {
            kept = kept.min(unused);
        }
    }
}

fn tell_ready(inherited: &Inherited) {
    let ready = [sd_notify::NotifyState::Ready, sd_notify::NotifyState::MainPid(std::process::id())];
    // Who was started by the service manager is known to it.
    tell_supervisor(if inherited.is_upgrade { &ready } else { &ready[..1] });
}

/// Unmaps the code that was used so far.
async fn unmap_code(threads: &Class) {
    if let Err(error) = threads.run(|_| Ok(sys::memory::unmap_code()?)).await {
        tracing::debug!(%error, "the pages of the executable stay mapped");
    }
}

/// Bytes in memory that the allocator has not given out; the program's own pages among them.
fn unused_memory() -> Option<u64> {
    Some(sys::memory::resident().ok()?.saturating_sub(sys::memory::in_use()))
}

/// What the engine is told of the configuration; programs that it names are asked what they can do.
async fn settings(config: &Config) -> Result<engine::settings::Settings> {
    let config = config.clone();
    Class::new(Work::Processes).run(move |on: &Blocking| Ok(wiring::settings(on, &config))).await
}

/// Reloads on SIGHUP, until a signal says to end, or another executable is to go on: then which.
async fn serve_signals(
    signals: &mut signals::Signals,
    engine: &Arc<engine::Engine>,
    loaded: Loaded,
    upgrades: &mut watch::Receiver<Option<PathBuf>>,
) -> Option<PathBuf> {
    let mut current = loaded.config.clone();
    loop {
        let upgrade = async {
            match upgrades.wait_for(Option::is_some).await {
                Ok(executable) => executable.clone().unwrap_or_default(),
                Err(_) => std::future::pending().await,
            }
        };
        match signals.next(upgrade).await {
            signals::Request::Reload => {}
            signals::Request::Dump => {
                dump(engine).await;
                continue;
            }
            signals::Request::End => return None,
            signals::Request::Upgrade(executable) => return Some(executable),
        }
        match config::reload(&loaded, &current) {
            Ok(reloaded) => {
                reloaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                match settings(&reloaded.config).await {
                    Ok(settings) => engine.replace_settings(settings),
                    Err(error) => tracing::error!("configuration not reloaded: {error}"),
                }
                let name = engine.host.hostname.clone();
                let attributes = reloaded.attributes.into_iter().chain([("name".to_string(), name)]);
                let mut attributes: BTreeMap<String, String> = attributes.collect();
                if let Some(mode) = attributes.get_mut("default-cgroupns-mode").filter(|mode| mode.is_empty()) {
                    mode.push_str(engine.host.default_cgroupns_mode());
                }
                engine.events.publish("daemon", "reload", &engine.host.engine_id, attributes);
                tracing::info!("configuration reloaded");
                current = reloaded.config;
            }
            Err(error) => tracing::error!("configuration not reloaded: {error}"),
        }
    }
}

/// Writes what the daemon is doing into the exec root, under the reference's name.
async fn dump(engine: &Arc<engine::Engine>) {
    let name = format!(
        "goroutine-stacks-{}.log",
        model::time::Timestamp::from_unix_nanos(sys::clock::System.unix_nanos()).rfc3339().replace(':', "")
    );
    let (engine, path) = (engine.clone(), engine.settings().roots.exec.join(name));
    let shown = path.display().to_string();
    let threads = Class::new(Work::Background);
    let written = threads.run(move |on| write(&path, &engine::dump::text(&engine, on), on));
    match written.await {
        Ok(()) => tracing::info!("goroutine stacks written to {shown}"),
        Err(error) => tracing::error!(%error, "failed to write goroutines dump"),
    }
}

#[expect(clippy::disallowed_methods, reason = "on a thread that may block")]
fn write(path: &Path, text: &str, _on: &Blocking) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Tells the service manager, if there is one.
fn tell_supervisor(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states).context("telling the service manager") {
        tracing::warn!(%error, "service manager not told");
    }
}
