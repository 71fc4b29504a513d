/* What a header is put in front of, to see whether it stands alone. */
extern int nothing;
