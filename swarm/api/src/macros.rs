//! The two shapes that every wire type has: a Go struct and a Go string enumeration. No types here.

/// Declares Go structs: `field: Type = "GoName" [omitempty],`, in dockerd's field order.
///
/// Every field has a default, so an absent key is Go's zero value. `omitempty` leaves the key out
/// when the value is the default, exactly where dockerd's own tag says so.
macro_rules! wire {
    ($(
        $(#[$sm:meta])*
        pub struct $name:ident {
            $( $(#[$fm:meta])* $field:ident : $ty:ty = $go:literal $($omit:ident)? , )*
        }
    )+) => {$(
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        $(#[$sm])*
        pub struct $name {
            $(
                #[doc = concat!("`", $go, "` on the wire.")]
                $(
                    #[doc = concat!(" ", stringify!($omit), ".\n")]
                    #[serde(skip_serializing_if = "crate::go::is_default")]
                )?
                $(#[$fm])*
                #[serde(rename = $go)]
                pub $field: $ty,
            )*
        }
    )+};
}

/// Declares an open enumeration of strings: `Unset` is `""`, anything else unknown is kept.
macro_rules! open_enum {
    ($( $(#[$em:meta])* pub enum $name:ident { $( $(#[$vm:meta])* $variant:ident = $text:literal, )+ } )+) => {$(
        $(#[$em])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            /// The empty string: not given.
            #[default]
            Unset,
            $(
                #[doc = concat!("`", $text, "`")]
                $(#[$vm])*
                $variant,
            )+
            /// Anything else a client sent, kept so that the refusal can quote it.
            Other(String),
        }

        impl $name {
            /// The text on the wire; empty for `Unset`.
            pub fn as_str(&self) -> &str {
                match self {
                    Self::Unset => "",
                    $( Self::$variant => $text, )+
                    Self::Other(text) => text,
                }
            }

            /// True for the empty string.
            pub fn is_unset(&self) -> bool {
                matches!(self, Self::Unset)
            }

            /// True for a value that dockerd does not know (the empty string is known).
            pub fn is_unknown(&self) -> bool {
                matches!(self, Self::Other(_))
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                if text.is_empty() {
                    return Self::Unset;
                }
                // dockerd looks most of these up in upper case, so any case will do.
                $(
                    if text.eq_ignore_ascii_case($text) {
                        return Self::$variant;
                    }
                )+
                Self::Other(text.to_owned())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(d).map(|text| Self::from(text.as_str()))
            }
        }
    )+};
}
