//! The portable half of the configuration: working directory, stop signal, environment, health check.

use model::{Error, Result, duration, mount, signal};

/// The shortest time of a health check.
const SHORTEST: i64 = 1_000_000;

pub(super) fn check(config: &mut api::ContainerConfig) -> Result<()> {
    let dir = &config.working_dir;
    if !dir.is_empty() {
        if !dir.starts_with('/') {
            return Err(Error::invalid(format!(
                "the working directory '{dir}' is invalid, it needs to be an absolute path"
            )));
        }
        config.working_dir = mount::clean(dir);
    }
    if !config.stop_signal.is_empty() {
        signal::parse_any(&config.stop_signal)?;
    }
    if let Some(wrong) = config.env.iter().flatten().find(|entry| entry.is_empty() || entry.starts_with('=')) {
        return Err(Error::invalid(format!("invalid environment variable: {wrong}")));
    }
    config.healthcheck.as_ref().map_or(Ok(()), check_health)
}

fn check_health(health: &api::HealthConfig) -> Result<()> {
    let too_short = |name: &str, time: i64| match time != 0 && time < SHORTEST {
        true => {
            let least = duration::format(SHORTEST);
            Err(Error::invalid(format!("{name} in Healthcheck cannot be less than {least}")))
        }
        false => Ok(()),
    };
    too_short("Interval", health.interval)?;
    too_short("Timeout", health.timeout)?;
    if health.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    too_short("StartPeriod", health.start_period)?;
    too_short("StartInterval", health.start_interval)
}
