//! Logs: text or JSON on standard error, at a level that can be changed while the node runs.

use std::io::{self, IsTerminal};

use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What keeps the node from serving.
    Error,
    /// What an operator should look at.
    Warn,
    /// Sessions and members that come and go.
    #[default]
    Info,
    /// Addresses and identities, too.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The word that files and commands use.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

/// Changes the level while the node runs.
#[derive(Clone)]
pub struct Handle(reload::Handle<LevelFilter, Registry>);

impl Handle {
    /// Takes another level from now on.
    pub fn set_level(&self, level: Level) {
        // It fails only if the subscriber is gone, and then nobody logs.
        let _gone = self.0.modify(|filter| *filter = level.into());
    }
}

/// Starts to log. Call once.
#[must_use]
pub fn start(level: Level, format: Format) -> Handle {
    let (filter, handle) = reload::Layer::new(LevelFilter::from(level));
    let lines = match format {
        Format::Text => {
            fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).with_target(false).boxed()
        }
        Format::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).with_target(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    Handle(handle)
}
