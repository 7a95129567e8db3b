//! Plugins by their type: built into this process, or executables in the plugin path.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{Environment, Error, ExecutedPlugin, Invocation, Plugin};

/// Finds plugins by `type`: one that was registered runs in this process, any other is searched for in the plugin path
/// and executed.
#[derive(Clone, Default)]
pub struct Registry {
    plugins: BTreeMap<String, Arc<dyn Plugin>>,
    builtin: Builtin,
}

impl Registry {
    /// A registry without built-in plugins.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a built-in plugin for `kind`, in place of the one that was there.
    #[must_use]
    pub fn with(mut self, kind: &str, plugin: impl Plugin + 'static) -> Self {
        self.plugins.insert(kind.to_owned(), Arc::new(plugin));
        self
    }

    /// Says which of the registered plugins may be used. The configuration key `builtin`, a list of types, overrides it.
    #[must_use]
    pub fn allow(mut self, builtin: Builtin) -> Self {
        self.builtin = builtin;
        self
    }

    /// The plugin for `kind`.
    ///
    /// # Errors
    /// [`Error::PluginNotFound`] when it is neither built in nor in the invocation's path; [`Error::Field`] when
    /// `builtin` in the configuration is not a list of strings.
    pub fn find(&self, kind: &str, invocation: &Invocation) -> Result<Arc<dyn Plugin>, Error> {
        let view = invocation.config.view();
        let configured = view.item("builtin").is_some().then(|| view.strings("builtin")).transpose()?;
        let allowed = match configured {
            Some(kinds) => kinds.iter().any(|allowed| allowed == kind),
            None => self.builtin.allows(kind),
        };
        match self.plugins.get(kind) {
            Some(plugin) if allowed => Ok(Arc::clone(plugin)),
            _ => Ok(Arc::new(ExecutedPlugin::find(kind, invocation)?)),
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<&String> = self.plugins.keys().collect();
        formatter.debug_struct("Registry").field("plugins", &kinds).field("builtin", &self.builtin).finish()
    }
}

/// Which built-in plugins may be used in place of executables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Builtin {
    /// All that are registered.
    #[default]
    All,
    /// Those of these types.
    Only(Vec<String>),
}

impl Builtin {
    /// Reads the variable `CNI_BUILTIN`, a list of types separated by commas: unset allows all, empty allows none.
    #[must_use]
    pub fn from_environment(environment: &Environment) -> Self {
        match environment.set("CNI_BUILTIN") {
            None => Self::All,
            Some(kinds) => {
                let kinds = kinds.to_string_lossy();
                Self::Only(kinds.split(',').map(str::trim).filter(|kind| !kind.is_empty()).map(str::to_owned).collect())
            }
        }
    }

    fn allows(&self, kind: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(kinds) => kinds.iter().any(|allowed| allowed == kind),
        }
    }
}
