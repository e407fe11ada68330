//! Which key does what: [`ACTIONS`], and a person's own keys over them.

use serde::Deserialize;
use std::collections::BTreeMap;

use crate::action::{ACTIONS, Action, ActionId, Context, STACKS};
use crate::key::{BadKey, Key};

/// Keys to actions.
#[derive(Clone, Debug)]
pub struct Keymap {
    /// Parallel to [`ACTIONS`].
    keys: Vec<Vec<Key>>,
}

/// What is wrong with a person's keys.
#[derive(Debug, thiserror::Error)]
pub enum KeymapError {
    /// Not TOML, or not a table of names to keys.
    #[error("keys: {0}")]
    Toml(#[from] toml::de::Error),
    /// No such action.
    #[error("keys: no action is called {0:?}; `:` in stalltop lists them")]
    NoAction(String),
    /// Not a key.
    #[error("keys: {0}")]
    Key(#[from] BadKey),
    /// Two actions on one key in one place.
    #[error("keys: {key} is bound to both {first} and {second} in {context}")]
    Clash {
        /// The key.
        key: String,
        /// One action.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// Where.
        context: &'static str,
    },
    /// An action without any key that reaches it.
    #[error("keys: nothing reaches {action} in {context}: {key} does something else there")]
    Unreachable {
        /// The action.
        action: &'static str,
        /// Where.
        context: &'static str,
        /// The key that is taken.
        key: String,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Keymap {
    /// The keys of [`ACTIONS`].
    ///
    /// # Errors
    /// If the table is wrong, which a test rules out.
    pub fn builtin() -> Result<Self, KeymapError> {
        Self::with("")
    }

    /// The keys of [`ACTIONS`], with those in `toml` in their place:
    /// `pause = "p"` or `quit = ["q", "ctrl-q"]`.
    ///
    /// # Errors
    /// For what is not TOML, not an action, not a key, and for clashes.
    pub fn with(toml: &str) -> Result<Self, KeymapError> {
        let own: BTreeMap<String, OneOrMore> = toml::from_str(toml)?;
        let mut keys = Vec::with_capacity(ACTIONS.len());
        for action in ACTIONS {
            let parsed: Result<Vec<Key>, BadKey> = action.keys.iter().map(|k| k.parse()).collect();
            keys.push(parsed?);
        }
        for (name, texts) in own {
            let Some(id) = ActionId::from_name(&name) else {
                return Err(KeymapError::NoAction(name));
            };
            let texts = match texts {
                OneOrMore::One(text) => vec![text],
                OneOrMore::More(texts) => texts,
            };
            let parsed: Result<Vec<Key>, BadKey> = texts.iter().map(|k| k.parse()).collect();
            if let Some(slot) = keys.get_mut(id as usize) {
                *slot = parsed?;
            }
        }
        let map = Self { keys };
        map.check()?;
        Ok(map)
    }

    /// One key does one thing in one place; a key that a more special place takes over
    /// leaves the action another key.
    fn check(&self) -> Result<(), KeymapError> {
        for stack in STACKS {
            for context in *stack {
                let here = || in_context(*context);
                for a in here() {
                    for b in here().filter(|b| (a.id as usize) < (b.id as usize)) {
                        if let Some(key) =
                            self.keys(a.id).iter().find(|k| self.keys(b.id).contains(k))
                        {
                            return Err(KeymapError::Clash {
                                key: key.to_string(),
                                first: a.name,
                                second: b.name,
                                context: context.title(),
                            });
                        }
                    }
                    let keys = self.keys(a.id);
                    let reached = keys.iter().any(|k| self.find(stack, *k) == Some(a.id));
                    if let (false, Some(key)) = (reached, keys.first()) {
                        return Err(KeymapError::Unreachable {
                            action: a.name,
                            context: stack.first().map_or("", |c| c.title()),
                            key: key.to_string(),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// The action of a key, looked for in the topmost context first.
    pub fn find(&self, stack: &[Context], key: Key) -> Option<ActionId> {
        stack.iter().find_map(|context| {
            in_context(*context)
                .find(|a| self.keys(a.id).contains(&key))
                .map(|a| a.id)
        })
    }

    /// The keys of an action.
    pub fn keys(&self, id: ActionId) -> &[Key] {
        self.keys.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// The key of an action that works in `stack`, for showing.
    pub fn key(&self, stack: &[Context], id: ActionId) -> Option<Key> {
        self.keys(id)
            .iter()
            .copied()
            .find(|k| self.find(stack, *k) == Some(id))
    }

    /// The actions that work in `stack`, the most special first, each once.
    pub fn available<'a>(
        &'a self,
        stack: &'a [Context],
    ) -> impl Iterator<Item = (Key, &'static Action)> + 'a {
        ACTIONS
            .iter()
            .filter(|a| a.contexts.iter().any(|c| stack.contains(c)))
            .filter_map(|a| self.key(stack, a.id).map(|k| (k, a)))
    }
}

fn in_context(context: Context) -> impl Iterator<Item = &'static Action> {
    ACTIONS
        .iter()
        .filter(move |a| a.contexts.contains(&context))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_keys_do_not_clash() {
        Keymap::builtin().unwrap();
    }

    #[test]
    fn own_keys_replace_and_are_checked() {
        let map = Keymap::with("pause = 'P'\nquit = ['q', 'ctrl-q']").unwrap();
        let stack = [Context::Overview, Context::Pane, Context::Everywhere];
        assert_eq!(
            map.find(&stack, "P".parse().unwrap()),
            Some(ActionId::Pause)
        );
        assert_eq!(map.find(&stack, "space".parse().unwrap()), None);
        assert_eq!(
            map.find(&stack, "ctrl-q".parse().unwrap()),
            Some(ActionId::Quit)
        );
        let error = |text: &str| Keymap::with(text).unwrap_err().to_string();
        assert!(error("pause = 'q'").contains("q is bound to both pause and quit"));
        assert!(error("paws = 'q'").contains("no action is called"));
        assert!(error("pause = 'qq'").contains("is not a key"));
        assert!(error("pause = 'x'").contains("nothing reaches pause in Tracing"));
        assert!(error("pause = [").contains("keys:"));
    }

    #[test]
    fn a_special_place_wins() {
        let map = Keymap::builtin().unwrap();
        let space = "space".parse().unwrap();
        let tracing = [Context::Tracing, Context::Pane, Context::Everywhere];
        assert_eq!(map.find(&tracing, space), Some(ActionId::Switch));
        assert_eq!(map.key(&tracing, ActionId::Pause).unwrap().to_string(), "p");
        assert_eq!(map.find(&tracing[1..], space), Some(ActionId::Pause));
    }
}
