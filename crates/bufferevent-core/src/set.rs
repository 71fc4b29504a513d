//! Small sets of named bits, as types of their own.
//!
//! A set holds things that may be there together (reasons, directions, steps). What excludes each
//! other is an enum, never a set.

/// Defines a set type over an integer, with its members as constants.
macro_rules! set {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident($int:ty) {
            $( $(#[$member_meta:meta])* $member:ident = $bit:expr; )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, Eq, PartialEq, Hash)]
        $vis struct $name($int);

        #[allow(dead_code, reason = "every set has the whole vocabulary, used or not")]
        impl $name {
            $( $(#[$member_meta])* $vis const $member: Self = Self($bit); )*

            /// The set without members.
            $vis const EMPTY: Self = Self(0);

            /// The members as bits.
            #[inline]
            pub(crate) const fn bits(self) -> $int {
                self.0
            }

            /// Whether every member of `other` is in this set.
            #[inline]
            #[must_use]
            $vis const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any member of `other` is in this set.
            #[inline]
            #[must_use]
            $vis const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// Whether the set has no members.
            #[inline]
            #[must_use]
            $vis const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// The members of both sets.
            #[inline]
            #[must_use]
            $vis const fn and(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }

            /// The members of either set.
            #[inline]
            #[must_use]
            $vis const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// The members of this set that are not in `other`.
            #[inline]
            #[must_use]
            $vis const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// The set of these [`bits`](Self::bits).
            #[inline]
            pub(crate) const fn from_bits(bits: $int) -> Self {
                Self(bits)
            }

            /// Adds the members of `other`.
            #[inline]
            $vis fn insert(&mut self, other: Self) {
                self.0 |= other.0;
            }

            /// Takes the members of `other` out.
            #[inline]
            $vis fn remove(&mut self, other: Self) {
                self.0 &= !other.0;
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;
            #[inline]
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let members: &[(Self, &str)] = &[$((Self::$member, stringify!($member))),*];
                let mut set = f.debug_set();
                for (member, name) in members {
                    if self.contains(*member) && !member.is_empty() {
                        set.entry(&format_args!("{name}"));
                    }
                }
                set.finish()
            }
        }
    };
}

pub(crate) use set;
