/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.testing;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.util.Base64;
import java.util.List;
import java.util.Map;

import static java.nio.charset.StandardCharsets.US_ASCII;

/**
 * A self-signed certificate and its key, drawn by the JDK's own {@code keytool}, in every form that
 * daemon and plugin take. Valid for two days; kept nowhere.
 */
public final class TestingCertificate
{
    public static final String PASSWORD = "password-of-a-test";
    private static final String ALIAS = "test";

    private final Path folder;
    private final String name;
    private final KeyStore store;

    /** @param subjectAlternativeName such as {@code ip:127.0.0.1} or {@code dns:elsewhere} */
    public TestingCertificate(Path folder, String name, String subjectAlternativeName)
    {
        this.folder = folder;
        this.name = name;
        try (ServerProcess keytool = new ServerProcess(
                List.of(Path.of(System.getProperty("java.home"), "bin", "keytool").toString(),
                        "-genkeypair", "-alias", ALIAS, "-keyalg", "EC", "-groupname", "secp256r1",
                        "-dname", "CN=" + name, "-ext", "SAN=" + subjectAlternativeName,
                        "-validity", "2", "-storetype", "PKCS12",
                        "-keystore", pkcs12().toString(), "-storepass", PASSWORD),
                Map.of(),
                folder.resolve(name + "-keytool.log"))) {
            if (keytool.awaitExit() != 0) {
                throw new IllegalStateException("keytool failed:\n" + keytool.output());
            }
        }
        try {
            store = KeyStore.getInstance(pkcs12().toFile(), PASSWORD.toCharArray());
        }
        catch (IOException | GeneralSecurityException e) {
            throw new IllegalStateException(e);
        }
    }

    /** Certificate and key, with {@link #PASSWORD}. */
    public Path pkcs12()
    {
        return folder.resolve(name + ".p12");
    }

    /** The certificate alone. */
    public Path certificate()
    {
        return write("-certificate.pem", certificateText());
    }

    /** The key alone. */
    public Path key()
    {
        return write("-key.pem", keyText());
    }

    /** Certificate and key. */
    public Path certificateAndKey()
    {
        return write(".pem", certificateText() + keyText());
    }

    private String certificateText()
    {
        try {
            return pem("CERTIFICATE", store.getCertificate(ALIAS).getEncoded());
        }
        catch (GeneralSecurityException e) {
            throw new IllegalStateException(e);
        }
    }

    private String keyText()
    {
        try {
            return pem("PRIVATE KEY", store.getKey(ALIAS, PASSWORD.toCharArray()).getEncoded());
        }
        catch (GeneralSecurityException e) {
            throw new IllegalStateException(e);
        }
    }

    private static String pem(String what, byte[] content)
    {
        String text = Base64.getMimeEncoder(64, "\n".getBytes(US_ASCII)).encodeToString(content);
        return "-----BEGIN %s-----\n%s\n-----END %s-----\n".formatted(what, text, what);
    }

    private Path write(String ending, String content)
    {
        try {
            return Files.writeString(folder.resolve(name + ending), content);
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
