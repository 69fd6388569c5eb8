//! The tests of this member plug the layers into other people's clients; what they share is here.
