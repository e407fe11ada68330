use super::*;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum By {
    #[default]
    Size,
    Name,
}

impl SortOrder for By {
    const ALL: &'static [Self] = &[Self::Size, Self::Name];

    fn title(self) -> &'static str {
        match self {
            Self::Size => "by size",
            Self::Name => "by name",
        }
    }
}

/// Name, depth, whether it is open.
#[derive(Clone, Copy)]
struct Row(&'static str, u16, Option<bool>);

impl Listed for Row {
    type Key = &'static str;
    type Order = By;

    fn key(&self) -> Self::Key {
        self.0
    }

    fn place(&self) -> Place {
        Place {
            depth: self.1,
            open: self.2,
            hit: self.0.starts_with('b'),
        }
    }
}

/// Two groups that are open by default, with what is in them.
fn shown(list: &Listing<Row>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (group, inside) in [("a", "b1"), ("c", "b2")] {
        let open = list.is_open(&group, true);
        rows.push(Row(group, 0, Some(open)));
        if open {
            rows.push(Row(inside, 1, None));
        }
    }
    rows
}

fn list() -> Listing<Row> {
    let mut list = Listing::default();
    list.set(shown(&list));
    list
}

fn names(list: &Listing<Row>) -> Vec<&'static str> {
    list.rows().iter().map(|row| row.0).collect()
}

/// Does an action as a pane does, with the rows built anew where that is asked for.
fn act(list: &mut Listing<Row>, action: ActionId) -> Acted {
    let acted = list.act(action);
    if acted == Acted::Asked {
        list.set(shown(list));
    }
    acted
}

#[test]
fn orders_go_round_and_turn() {
    let mut list = list();
    assert_eq!(list.order_title(), "by size");
    assert_eq!(list.act(ActionId::Sort), Acted::Asked);
    assert_eq!(list.act(ActionId::Reverse), Acted::Asked);
    assert_eq!(list.order_title(), "by name, reversed");
    list.act(ActionId::Sort);
    assert_eq!(list.order, By::Size);
    assert_eq!(list.act(ActionId::Pause), Acted::NotMine);
}

#[test]
fn escape_clears_the_filter_and_no_more() {
    let mut list = list();
    list.filter.push_str("net");
    assert_eq!(list.filter_title().unwrap(), "filter \"net\"");
    assert_eq!(list.act(ActionId::Close), Acted::Asked);
    assert_eq!(list.filter_title(), None);
    assert_eq!(list.act(ActionId::Close), Acted::NotMine);
}

#[test]
fn matches_are_what_hits_by_itself() {
    let mut list = list();
    assert_eq!(list.hits(), 2);
    assert_eq!(list.act(ActionId::NextMatch), Acted::Moved);
    assert_eq!(list.selected().unwrap().0, "b1");
    list.act(ActionId::PreviousMatch);
    assert_eq!(list.selected().unwrap().0, "b2");
}

#[test]
fn left_goes_to_the_parent_then_folds_it() {
    let mut list = list();
    act(&mut list, ActionId::Down);
    assert_eq!(act(&mut list, ActionId::Fold), Acted::Moved);
    assert_eq!(list.selected().unwrap().0, "a");
    assert_eq!(act(&mut list, ActionId::Fold), Acted::Asked);
    assert_eq!(names(&list), ["a", "c", "b2"]);
    assert_eq!(act(&mut list, ActionId::Fold), Acted::Moved);
    assert!(!list.fold(Some(false)) && list.fold(Some(true)));
}

#[test]
fn everything_folds_and_unfolds() {
    let mut list = list();
    act(&mut list, ActionId::FoldAll);
    assert_eq!(names(&list), ["a", "c"]);
    act(&mut list, ActionId::FoldAll);
    assert_eq!(names(&list), ["a", "b1", "c", "b2"]);
    // What is all there is stays open.
    list.set(vec![Row("/", 0, Some(true)), Row("x", 1, Some(true))]);
    list.act(ActionId::FoldAll);
    assert!(list.is_open(&"/", true) && !list.is_open(&"x", true));
}
