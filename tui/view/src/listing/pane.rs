//! What panes that are lists have in common.

use super::{Acted, Listed, Listing};
use crate::action::ActionId;
use crate::msg::{Mouse, MouseKind};
use crate::pane::{Reply, Scene};

/// A pane that is a list of rows, or one while no details lie over it.
pub(crate) trait ListPane {
    /// Its rows.
    type Row: Listed;

    /// The list.
    fn listing(&mut self) -> &mut Listing<Self::Row>;

    /// Works the rows out anew.
    fn rebuild(&mut self, scene: &Scene<'_>);

    /// Opens the details of the selected row.
    fn enter(&mut self, scene: &Scene<'_>) -> Reply;

    /// The time that is shown went on, or is another one.
    fn refresh_list(&mut self, scene: &Scene<'_>) {
        self.listing().tick();
        self.rebuild(scene);
    }

    /// Does an action that the pane gives no meaning of its own.
    fn act_on_list(&mut self, action: ActionId, scene: &Scene<'_>) -> Reply {
        let acted = match action {
            ActionId::Open if self.listing().fold(None) => Acted::Asked,
            ActionId::Unfold if self.listing().fold(Some(true)) => Acted::Asked,
            ActionId::Open => return self.enter(scene),
            // What has something below it unfolds at most; anything else opens.
            ActionId::Unfold => match self.listing().selected().and_then(|row| row.place().open) {
                Some(_) => Acted::Moved,
                None => return self.enter(scene),
            },
            action => self.listing().act(action),
        };
        match acted {
            Acted::NotMine => return Reply::NotMine,
            Acted::Moved => {}
            Acted::Asked => self.rebuild(scene),
        }
        Reply::Done
    }

    /// Takes the mouse: the wheel moves the cursor, a click puts it somewhere, a second one
    /// does what Enter does in most lists: folds, or opens.
    fn mouse_on_list(&mut self, mouse: Mouse, scene: &Scene<'_>) -> Reply {
        match mouse.kind {
            MouseKind::WheelUp => self.act_on_list(ActionId::Up, scene),
            MouseKind::WheelDown => self.act_on_list(ActionId::Down, scene),
            MouseKind::Press if self.listing().click(mouse) => {
                self.act_on_list(ActionId::Open, scene)
            }
            MouseKind::Press | MouseKind::Drag => Reply::Done,
        }
    }
}
