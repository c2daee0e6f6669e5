//! Every order of events, with a kill after every action.
