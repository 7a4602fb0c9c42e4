/* Linked into the static binary alone (packaging/static). A static glibc still loads the modules that /etc/nsswitch.conf
   names from the machine, and crashes if the machine has another version of glibc. So the binary reads names from
   /etc/hosts and DNS, and users from /etc/passwd, whatever that file says. */
#include <nss.h>

__attribute__((constructor)) static void read_names_without_modules(void) {
  __nss_configure_lookup("hosts", "files dns");
  __nss_configure_lookup("passwd", "files");
}
